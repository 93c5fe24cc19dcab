//! What the host's `/proc` says about the processes of a container: nothing is needed in its image.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use procfs::ProcError;
use procfs::net::TcpState;

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number in the container; the first process has 1.
    pub pid: i32,
    /// Its state, as `ps` shows it: `Z` is a zombie.
    pub state: char,
    /// Its command line; of a zombie, the name alone.
    pub command: String,
    /// The user that it acts as.
    pub uid: u32,
}

/// What a container's processes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The processor time that they and their ended children have used.
    pub cpu: Duration,
    /// The bytes of memory that they hold; what several share counts for each.
    pub memory: u64,
}

/// A container's first process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstProcess {
    /// Its command line.
    pub command: String,
    caught: u64,
    ignored: u64,
    blocked: u64,
}

impl FirstProcess {
    /// What it does with a signal.
    ///
    /// # Errors
    /// There is no such signal.
    pub fn disposition(&self, signal: &str) -> anyhow::Result<Disposition> {
        let bit = 1_u64 << (signal_number(signal)? - 1);
        Ok(if self.caught & bit != 0 {
            Disposition::Caught
        } else if self.ignored & bit != 0 {
            Disposition::Ignored
        } else if self.blocked & bit != 0 {
            Disposition::Blocked
        } else {
            Disposition::Default
        })
    }
}

/// What a process does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It has a handler.
    Caught,
    /// It has no effect.
    Ignored,
    /// It is held back. Programs do so that wait for it, with sigwait or signalfd, as tini does.
    Blocked,
    /// What the kernel does by default, which for a container's first process is nothing, but for SIGKILL and SIGSTOP.
    Default,
}

/// The number of a signal as images name it: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
///
/// # Errors
/// There is no such signal.
pub fn signal_number(signal: &str) -> anyhow::Result<u32> {
    const FIRST_REAL_TIME: u32 = 34;
    let upper = signal.trim().to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Ok(number) = name.parse() {
        number
    } else if let Some(rest) = name.strip_prefix("RTMIN") {
        let above = rest
            .strip_prefix('+')
            .unwrap_or(if rest.is_empty() { "0" } else { rest });
        above
            .parse::<u32>()
            .map_or(0, |above| FIRST_REAL_TIME.saturating_add(above))
    } else {
        Signal::from_str(&format!("SIG{name}")).map_or(0, |signal| signal as u32)
    };
    if !(1..=64).contains(&number) {
        bail!("“{signal}” is no signal; expected something like SIGTERM, QUIT, 15 or SIGRTMIN+3");
    }
    Ok(number)
}

/// A container's main process, as the host numbers it.
pub(super) struct Main(procfs::process::Process);

impl Main {
    /// The process of that number; none if it has ended.
    ///
    /// # Errors
    /// It is on another machine, or may not be looked at.
    pub(super) fn find(pid: i64) -> anyhow::Result<Option<Self>> {
        let Some(process) = present(procfs::process::Process::new(i32::try_from(pid)?))? else {
            return Ok(None);
        };
        let Some(status) = present(process.status())? else {
            return Ok(None);
        };
        // A number of another machine's would name any process of this one.
        let numbers = status.nspid.unwrap_or_default();
        if numbers.len() < 2 || numbers.last() != Some(&1) {
            bail!(
                "process {pid} of this machine is not the first one of a container, although the engine says so: \
                 it seems to run on another machine; use an engine on this one"
            );
        }
        Ok(Some(Self(process)))
    }

    /// Its command line, and what it does with signals.
    pub(super) fn first(&self) -> anyhow::Result<Option<FirstProcess>> {
        let Some(status) = present(self.0.status())? else {
            return Ok(None);
        };
        Ok(Some(FirstProcess {
            command: command(&self.0, &status.name),
            caught: status.sigcgt,
            ignored: status.sigign,
            blocked: status.sigblk,
        }))
    }

    /// Whether there is a file of that path in its root, whatever it is.
    pub(super) fn has_file(&self, path: &str) -> anyhow::Result<bool> {
        let inside = format!("/proc/{}/root/{}", self.0.pid, path.trim_start_matches('/'));
        match fs::symlink_metadata(&inside) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot look at {path} in the container")),
        }
    }

    /// All processes of the container.
    pub(super) fn all(&self) -> anyhow::Result<Vec<Process>> {
        let mut found = Vec::new();
        for process in self.siblings()? {
            let (Some(stat), Some(status)) = (present(process.stat())?, present(process.status())?) else {
                continue;
            };
            found.push(Process {
                pid: status
                    .nspid
                    .and_then(|numbers| numbers.last().copied())
                    .unwrap_or(stat.pid),
                state: stat.state,
                command: command(&process, &stat.comm),
                uid: status.euid,
            });
        }
        found.sort_by_key(|process| process.pid);
        Ok(found)
    }

    /// What they use.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = Usage {
            cpu: Duration::ZERO,
            memory: 0,
        };
        for process in self.siblings()? {
            if let Some(stat) = present(process.stat())? {
                let children = u64::try_from(stat.cutime + stat.cstime).unwrap_or_default();
                let ticks = stat.utime + stat.stime + children;
                usage.cpu += Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64);
                usage.memory += stat.rss * procfs::page_size();
            }
        }
        Ok(usage)
    }

    /// The TCP ports that something listens at in its network namespace.
    pub(super) fn listening(&self) -> anyhow::Result<BTreeSet<u16>> {
        // Where there is no IPv6, there is no second table.
        let tables = [present(self.0.tcp())?, present(self.0.tcp6())?];
        let entries = tables.into_iter().flatten().flatten();
        let listening = entries.filter(|entry| entry.state == TcpState::Listen);
        Ok(listening.map(|entry| entry.local_address.port()).collect())
    }

    /// The processes of the same process namespace.
    fn siblings(&self) -> anyhow::Result<Vec<procfs::process::Process>> {
        let Some(own) = namespace(self.0.pid)? else {
            return Ok(Vec::new());
        };
        let all = procfs::process::all_processes().context("/proc cannot be read")?;
        let same =
            |process: &procfs::process::Process| matches!(namespace(process.pid), Ok(Some(other)) if other == own);
        Ok(all.flatten().filter(same).collect())
    }
}

/// What identifies a process's namespace of processes; none if the process has ended.
fn namespace(pid: i32) -> anyhow::Result<Option<PathBuf>> {
    match fs::read_link(format!("/proc/{pid}/ns/pid")) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => Ok(None),
        Err(error) => Err(error).with_context(|| forbidden(pid)),
    }
}

/// What the kernel answers about a process that has just ended.
const ESRCH: i32 = nix::errno::Errno::ESRCH as i32;

fn forbidden(pid: i32) -> String {
    format!("/proc/{pid} cannot be read: run sidecheck as the user that the container engine runs as, or as root")
}

/// What was read; nothing if the process has ended meanwhile.
fn present<T>(read: Result<T, ProcError>) -> anyhow::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(ProcError::Io(error, _)) if error.raw_os_error() == Some(ESRCH) => Ok(None),
        Err(error) => Err(error)
            .context("the container's processes cannot be looked at in /proc: run sidecheck as the user that the container engine runs as, or as root"),
    }
}

fn command(process: &procfs::process::Process, name: &str) -> String {
    match process.cmdline() {
        Ok(words) if !words.is_empty() => words.join(" "),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::signal_number;

    #[rstest]
    #[case("SIGTERM", Some(15))]
    #[case("quit", Some(3))]
    #[case("9", Some(9))]
    #[case("SIGRTMIN+3", Some(37))]
    #[case("RTMIN", Some(34))]
    #[case("SIGNOTHING", None)]
    #[case("0", None)]
    #[case("65", None)]
    #[case("", None)]
    fn a_signal_has_a_number(#[case] name: &str, #[case] number: Option<u32>) {
        assert_eq!(signal_number(name).ok(), number);
    }
}
