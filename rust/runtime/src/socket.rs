//! Frames and file descriptors over a Unix stream socket, each direction by itself.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};

use crate::wire::{self, WireError};

/// How much is read at once.
const READ: usize = 256 << 10;

/// Descriptors that may have come without their frames having been handled.
const MOST_FDS: usize = 64;

/// The other side of a socket is gone, or it sent what is no frame.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// End of file, or an error that means the same.
    #[error("the peer is gone")]
    Gone,
    /// What came is no frame.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Another error of the socket.
    #[error("socket: {0}")]
    Os(#[from] Errno),
}

fn gone(errno: Errno) -> SocketError {
    match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => SocketError::Gone,
        other => SocketError::Os(other),
    }
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: Arc<OwnedFd>,
    bytes: BytesMut,
    fds: VecDeque<OwnedFd>,
    scratch: Box<[u8]>,
    /// What was read last has filled `scratch`.
    filled: bool,
}

impl Reader {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        let scratch = vec![0; READ].into_boxed_slice();
        Self { socket, bytes: BytesMut::new(), fds: VecDeque::new(), scratch, filled: false }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next whole frame that was read already.
    pub(crate) fn frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let frame = wire::take_frame(&mut self.bytes)?;
        if frame.is_none() && self.bytes.is_empty() && !self.fds.is_empty() {
            return Err(WireError::Inconsistent("a file descriptor came with no frame that names it"));
        }
        Ok(frame)
    }

    /// Ends the connection: nothing that came, and nothing that comes, is read any more.
    pub(crate) fn close(&mut self) {
        self.bytes.clear();
        self.fds.clear();
        // It fails when the peer is gone, which is as good.
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }

    /// The oldest descriptor that came and was not taken.
    pub(crate) fn take_fd(&mut self) -> Result<OwnedFd, WireError> {
        self.fds.pop_front().ok_or(WireError::Missing("file descriptor"))
    }

    /// Whether there may be more behind what was read last.
    pub(crate) fn was_filled(&self) -> bool {
        self.filled
    }

    /// Reads what is there. False if nothing is and `block` is not set.
    pub(crate) fn fill(&mut self, block: bool) -> Result<bool, SocketError> {
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        if !block {
            flags |= RecvFlags::DONTWAIT;
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            // One that is not named by a frame keeps its number taken in this process.
            if self.fds.len() >= MOST_FDS {
                return Err(WireError::Inconsistent("too many file descriptors").into());
            }
            match recvmsg(&*self.socket, &mut [IoSliceMut::new(&mut self.scratch)], &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                other => break other.map_err(gone)?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(WireError::Missing("file descriptors").into());
        }
        if received.bytes == 0 {
            return Err(SocketError::Gone);
        }
        self.filled = received.bytes == self.scratch.len();
        self.bytes.extend_from_slice(&self.scratch[..received.bytes]);
        Ok(true)
    }
}

/// The writing half. Frames are gathered and written together.
#[derive(Debug)]
pub(crate) struct Writer {
    socket: Arc<OwnedFd>,
    bytes: BytesMut,
    /// Descriptors, and how many bytes stand before the frame they belong to.
    fds: VecDeque<(usize, OwnedFd)>,
    frames: u64,
}

impl Writer {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, bytes: BytesMut::new(), fds: VecDeque::new(), frames: 0 }
    }

    /// Adds a frame, which `put` appends.
    pub(crate) fn queue(&mut self, put: impl FnOnce(&mut BytesMut)) {
        put(&mut self.bytes);
        self.frames += 1;
    }

    /// Adds a frame and the descriptor that belongs to it.
    pub(crate) fn queue_with_fd(&mut self, fd: OwnedFd, put: impl FnOnce(&mut BytesMut)) {
        self.fds.push_back((self.bytes.len(), fd));
        self.queue(put);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many frames were queued since this was last asked.
    pub(crate) fn take_frames(&mut self) -> u64 {
        std::mem::take(&mut self.frames)
    }

    /// Writes what was gathered. False if the socket takes no more now and `block` is not set.
    pub(crate) fn flush(&mut self, block: bool) -> Result<bool, SocketError> {
        let mut flags = SendFlags::NOSIGNAL;
        if !block {
            flags |= SendFlags::DONTWAIT;
        }
        while !self.bytes.is_empty() {
            // A descriptor goes with the first byte of its frame, so what stands before is written on its own.
            let (fd, until) = match self.fds.front() {
                Some((0, fd)) => (Some(fd.as_fd()), self.fds.get(1).map_or(self.bytes.len(), |(at, _)| *at)),
                Some((at, _)) => (None, *at),
                None => (None, self.bytes.len()),
            };
            let rights = fd.map(|fd| [fd]);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(rights) = &rights {
                control.push(SendAncillaryMessage::ScmRights(rights));
            }
            let slices = [IoSlice::new(&self.bytes[..until])];
            let sent = match sendmsg(&*self.socket, &slices, &mut control, flags) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(false),
                other => other.map_err(gone)?,
            };
            if rights.is_some() {
                self.fds.pop_front();
            }
            self.bytes.advance(sent);
            for (at, _) in &mut self.fds {
                *at -= sent;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Writer, Reader) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (Writer::new(Arc::new(a)), Reader::new(Arc::new(b)))
    }

    fn frame(out: &mut BytesMut, byte: u8, len: usize) {
        out.put_u32_le(len as u32);
        out.put_bytes(byte, len);
    }

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (mut writer, mut reader) = pair();
        let (r, w) = rustix::pipe::pipe().unwrap();
        writer.queue(|out| frame(out, 1, 10));
        writer.queue_with_fd(r, |out| frame(out, 2, 100_000));
        writer.queue_with_fd(w, |out| frame(out, 3, 0));
        writer.queue(|out| frame(out, 4, 1));
        assert_eq!(writer.take_frames(), 4);
        let mut seen = Vec::new();
        let mut fds = Vec::new();
        while seen.len() < 4 {
            writer.flush(false).unwrap();
            reader.fill(true).unwrap();
            while let Some(frame) = reader.frame().unwrap() {
                seen.push((frame.first().copied().unwrap_or(3), frame.len()));
                if let [.., (2 | 3, _)] = seen[..] {
                    fds.push(reader.take_fd().unwrap());
                }
            }
        }
        assert_eq!(seen, [(1, 10), (2, 100_000), (3, 0), (4, 1)]);
        let [r, w] = <[OwnedFd; 2]>::try_from(fds).unwrap();
        rustix::io::write(&w, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&r, &mut byte).unwrap(), 1);
        assert!(reader.take_fd().is_err());
    }

    #[test]
    fn a_full_socket_takes_the_rest_later() {
        let (mut writer, mut reader) = pair();
        writer.queue(|out| frame(out, 7, 8 << 20));
        assert!(!writer.flush(false).unwrap());
        let got = loop {
            reader.fill(true).unwrap();
            if let Some(frame) = reader.frame().unwrap() {
                break frame;
            }
            writer.flush(false).unwrap();
        };
        assert!(got.len() == 8 << 20 && got.iter().all(|&b| b == 7));
    }

    #[test]
    fn a_closed_peer_and_a_length_that_cannot_be_are_errors() {
        let (mut writer, mut reader) = pair();
        writer.queue(|out| out.put_u32_le(u32::MAX));
        writer.flush(true).unwrap();
        reader.fill(true).unwrap();
        assert!(matches!(reader.frame(), Err(WireError::TooLong(_))));
        drop(writer);
        assert!(matches!(reader.fill(true), Err(SocketError::Gone)));
    }
}
