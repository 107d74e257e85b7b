//! The template process: it forks workers, reaps them, and ends with the driver.
//!
//! One packet is one message, in both directions (`SOCK_SEQPACKET`); the other side is `eagleray/_zygote.py`. The
//! socket is the template's standard input, so nothing has to be inherited by number.

use std::ffi::OsString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use eagleray_core::ids::WorkerId;
use eagleray_core::message::Death;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};

/// What the template says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromTemplate {
    /// It has read its modules and forks from now on.
    Ready,
    /// A worker was forked.
    Started { worker: WorkerId, pid: u32 },
    /// A worker was reaped.
    Exited { worker: WorkerId, death: Death },
    /// Something did not work.
    Error(String),
    /// It is gone.
    Gone,
}

/// The template process.
#[derive(Debug)]
pub(crate) struct Template {
    child: Child,
    socket: OwnedFd,
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(packet.get(at..at + 4)?.try_into().ok()?))
}

/// How a process ended, from its wait status.
fn death(status: i32) -> Death {
    match status & 0x7f {
        0 => Death::Exited((status >> 8) & 0xff),
        signal => Death::Signalled(signal),
    }
}

fn parse(packet: &[u8]) -> Option<FromTemplate> {
    Some(match packet.first()? {
        b'R' => FromTemplate::Ready,
        b'U' => FromTemplate::Started { worker: WorkerId(word(packet, 1)?), pid: word(packet, 5)? },
        b'X' => {
            let status = word(packet, 9)?.cast_signed();
            FromTemplate::Exited { worker: WorkerId(word(packet, 1)?), death: death(status) }
        }
        b'E' => FromTemplate::Error(String::from_utf8_lossy(&packet[1..]).into_owned()),
        _ => return None,
    })
}

impl Template {
    /// Starts it.
    pub(crate) fn start(argv: &[OsString], environment: &[(OsString, OsString)]) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok(Self { child, socket: ours })
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn send(&self, packet: &[u8], fds: &[&OwnedFd]) -> Result<(), Errno> {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        // It reads all the time but while it imports; its queue is far longer than what it is ever asked at once.
        sendmsg(&self.socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Asks for a worker with this socket and page.
    pub(crate) fn fork(&self, worker: WorkerId, socket: &OwnedFd, page: &OwnedFd) -> Result<(), Errno> {
        let mut packet = vec![b'F'];
        packet.extend(worker.0.to_le_bytes());
        self.send(&packet, &[socket, page])
    }

    /// Asks it to end a worker.
    pub(crate) fn kill(&self, worker: WorkerId, signal: u32) -> Result<(), Errno> {
        let mut packet = vec![b'K'];
        packet.extend(worker.0.to_le_bytes());
        packet.extend(signal.to_le_bytes());
        self.send(&packet, &[])
    }

    /// Asks it to import modules, so that later workers have them.
    pub(crate) fn preload(&self, modules: &[String]) -> Result<(), Errno> {
        let mut packet = vec![b'P'];
        packet.extend(modules.join("\n").as_bytes());
        self.send(&packet, &[])
    }

    /// What it said, if it did.
    pub(crate) fn receive(&self) -> Option<FromTemplate> {
        let mut packet = [0; 4096];
        loop {
            match recv(&self.socket, &mut packet, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) | Ok((0, _)) => return Some(FromTemplate::Gone),
                Ok((len, _)) => match parse(&packet[..len]) {
                    Some(message) => return Some(message),
                    None => return Some(FromTemplate::Error("a packet that means nothing".into())),
                },
            }
        }
    }

    /// Ends it with all its workers, and waits for that.
    pub(crate) fn stop(mut self) {
        // Both may fail because it is gone already, which is what is wanted.
        let _ = self.send(b"Q", &[]);
        drop(self.socket);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_understood() {
        assert_eq!(parse(b"R"), Some(FromTemplate::Ready));
        assert_eq!(parse(b"U\x01\0\0\0\x02\0\0\0"), Some(FromTemplate::Started { worker: WorkerId(1), pid: 2 }));
        let killed = FromTemplate::Exited { worker: WorkerId(1), death: Death::Signalled(9) };
        assert_eq!(parse(b"X\x01\0\0\0\x02\0\0\0\x09\0\0\0"), Some(killed));
        let exited = FromTemplate::Exited { worker: WorkerId(1), death: Death::Exited(3) };
        assert_eq!(parse(b"X\x01\0\0\0\x02\0\0\0\0\x03\0\0"), Some(exited));
        assert_eq!(parse(b"X\x01"), None);
        assert_eq!(parse(b""), None);
    }
}
