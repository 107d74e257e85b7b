//! Signals to worker processes.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The parent of a process, as the system says.
fn parent(pid: Pid) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the program's name, which is in parentheses and may contain some: state, parent.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Sends SIGINT to a process that must be a child of `template`: a worker says itself what its pid is, and its number may
/// have been given to another process since.
pub(crate) fn interrupt(template: u32, pid: u32) -> Result<(), Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    // First: whatever has the number now is what is looked at and what gets the signal.
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    if parent(pid) != Some(template) {
        return Err(Errno::SRCH);
    }
    pidfd_send_signal(process, Signal::INT)
}

/// A child that sleeps, and that SIGINT ends also where this process was started in the background of a shell: there it is
/// ignored, and so it is by children.
#[cfg(test)]
pub(crate) fn sleeper() -> std::process::Child {
    let mut command = std::process::Command::new("env");
    let child = command.args(["--default-signal=INT", "sleep", "1000"]).spawn().unwrap();
    while std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    child
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_child_of_the_template_is_interrupted() {
        let mut child = sleeper();
        let us = std::process::id();
        assert_eq!(interrupt(us + 1, child.id()), Err(Errno::SRCH), "another's child");
        assert_eq!(interrupt(us, us), Err(Errno::SRCH), "no child");
        assert_eq!(interrupt(us, 0), Err(Errno::SRCH));
        assert_eq!(interrupt(us, u32::MAX), Err(Errno::SRCH));
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
        interrupt(us, child.id()).unwrap();
        let signal = child.wait().unwrap().signal();
        assert_eq!(signal, Some(Signal::INT.as_raw()));
        assert_eq!(interrupt(us, child.id()), Err(Errno::SRCH), "it has ended");
    }
}
