//! The template process: it forks workers, reaps them, and ends with the driver.
//!
//! One packet is one message, in both directions (`SOCK_SEQPACKET`); the other side is `eagleray/_zygote.py`. The
//! socket is the template's standard input, so nothing has to be inherited by number.

use std::ffi::OsString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eagleray_core::ids::WorkerId;
use eagleray_core::message::{Death, End};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use rustix::process::{PidfdFlags, pidfd_open};

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

/// How long a template may take to end its workers and itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// The template process.
#[derive(Debug)]
pub(crate) struct Template {
    child: Child,
    socket: OwnedFd,
}

fn long(packet: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(packet.get(at..at + 8)?.try_into().ok()?))
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(packet.get(at..at + 4)?.try_into().ok()?))
}

/// How a process ended, from its wait status.
fn end(status: i32) -> End {
    match status & 0x7f {
        0 => End::Exited((status >> 8) & 0xff),
        signal => End::Signalled(signal),
    }
}

fn parse(packet: &[u8]) -> Option<FromTemplate> {
    Some(match packet.first()? {
        b'R' => FromTemplate::Ready,
        b'U' => FromTemplate::Started { worker: WorkerId(word(packet, 1)?), pid: word(packet, 5)? },
        b'X' => {
            let status = word(packet, 9)?.cast_signed();
            let death = Death { end: end(status), pid: word(packet, 5)?, peak_bytes: long(packet, 13)? };
            FromTemplate::Exited { worker: WorkerId(word(packet, 1)?), death }
        }
        b'E' => FromTemplate::Error(String::from_utf8_lossy(&packet[1..]).into_owned()),
        _ => return None,
    })
}

impl Template {
    /// Starts it, with this environment alone and, if it is there, in this directory; `setup` is done to the command before.
    pub(crate) fn start(
        argv: &[OsString],
        setup: fn(&mut Command),
        environment: &[(OsString, OsString)],
        directory: Option<&Path>,
    ) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (program, arguments) = argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter().cloned()).stdin(Stdio::from(theirs));
        setup(&mut command);
        if let Some(directory) = directory.filter(|directory| directory.is_dir()) {
            command.current_dir(directory);
        }
        let child = command.spawn()?;
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

    /// Ends it with all its workers, and waits for that: first with a request, then by force, for a template may hang, in
    /// an import say. Its workers end with it in either case. Returns how it ended, in words, and its pid.
    pub(crate) fn stop(mut self) -> (String, u32) {
        // It may fail because the template is gone already, or does not read; not waited for, and both are looked at below.
        let _ = sendmsg(
            &self.socket,
            &[IoSlice::new(b"Q")],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
        drop(self.socket);
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let process = rustix::process::Pid::from_child(&self.child);
        let polled = pidfd_open(process, PidfdFlags::empty())
            .and_then(|fd| poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&patience)));
        if polled != Ok(1) {
            let _ = self.child.kill();
        }
        let ended = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        (ended, self.child.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_hangs_is_ended_by_force() {
        let argv = ["/bin/sleep", "1000"].map(Into::into);
        let template = Template::start(&argv, |_| (), &[], None).unwrap();
        let pid = rustix::process::Pid::from_child(&template.child);
        template.stop();
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn packets_are_understood() {
        assert_eq!(parse(b"R"), Some(FromTemplate::Ready));
        assert_eq!(parse(b"U\x01\0\0\0\x02\0\0\0"), Some(FromTemplate::Started { worker: WorkerId(1), pid: 2 }));
        let exited =
            |end| Some(FromTemplate::Exited { worker: WorkerId(1), death: Death { end, pid: 2, peak_bytes: 0x0300 } });
        let killed = b"X\x01\0\0\0\x02\0\0\0\x09\0\0\0\0\x03\0\0\0\0\0\0";
        assert_eq!(parse(killed), exited(End::Signalled(9)));
        assert_eq!(parse(b"X\x01\0\0\0\x02\0\0\0\0\x03\0\0\0\x03\0\0\0\0\0\0"), exited(End::Exited(3)));
        assert_eq!(parse(&killed[..20]), None, "cut off");
        assert_eq!(parse(b""), None);
    }
}
