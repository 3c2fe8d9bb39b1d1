//! What tells one VMM from another, asked without a look into its memory: a process can have whoever
//! reads its command line wait for ever.

use std::fs::{read_link, read_to_string};
use std::io::{Error, Result};

use super::process::{Process, proc_is_ours};

/// What the kernel says of a process. What cannot be seen from here is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// The name of its program, at most 15 bytes; it can give itself another.
    pub name: Option<String>,
    /// Its cgroup, in the unified hierarchy if there is one.
    pub cgroup: Option<String>,
    /// Its root directory, as this process sees it: that of its jail, if it is in one.
    pub root: Option<String>,
}

impl Process {
    /// What tells it from others, or an error where nothing can: it has exited, or `/proc` is not that
    /// of this process.
    pub fn facts(&self) -> Result<ProcessFacts> {
        proc_is_ours()?;
        let of = |file: &str| format!("/proc/{}/{file}", self.pid());
        let facts = ProcessFacts {
            name: read_to_string(of("comm")).ok().map(|name| name.trim_end().to_owned()),
            cgroup: read_to_string(of("cgroup")).ok().as_deref().and_then(cgroup),
            root: read_link(of("root")).ok().map(|root| root.to_string_lossy().into_owned()),
        };
        // While it has not exited nobody else has its number.
        if self.has_exited() {
            return Err(Error::other("the process has exited"));
        }
        Ok(facts)
    }
}

/// The path in a line such as `0::/vms/vm-7`, which is that of the unified hierarchy, or in the first.
fn cgroup(lines: &str) -> Option<String> {
    let unified = lines.lines().find_map(|line| line.strip_prefix("0::"));
    let first = || lines.lines().next()?.splitn(3, ':').nth(2);
    unified.or_else(first).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::libc;

    use super::*;

    #[test]
    fn a_process_is_told_by_its_name_cgroup_and_root() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of_child(&child).unwrap();
        // It has its name once it is the other program.
        let facts = loop {
            let facts = process.facts().unwrap();
            if facts.name.as_deref() == Some("sleep") {
                break facts;
            }
        };
        assert_eq!(facts.root.as_deref(), Some("/"));
        assert!(facts.cgroup.unwrap().starts_with('/'));
        child.kill().unwrap();
        child.wait().unwrap();
        process.facts().unwrap_err();
    }

    #[test]
    fn one_in_a_jail_is_told_by_its_root() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let jail = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(jail.path().to_str().unwrap()).unwrap();
        // SAFETY: the child makes system calls and nothing else, as it may after a fork of a process
        // with threads.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above; the path is a string that ends with zero.
            unsafe {
                libc::chroot(path.as_ptr());
                loop {
                    libc::pause();
                }
            }
        }
        let started = || Process::find(pid, started_of(pid)).unwrap().facts().unwrap().root;
        let found = std::iter::repeat_with(started).find(|root| root.as_deref() != Some("/"));
        // SAFETY: it is the child of this process, not reaped yet.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
        assert_eq!(found.flatten().as_deref(), jail.path().to_str());
    }

    /// When a process was started, as the 22nd field of its stat says.
    fn started_of(pid: i32) -> u64 {
        let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(19).unwrap().parse().unwrap()
    }

    #[test]
    fn the_unified_hierarchy_counts() {
        assert_eq!(cgroup("4:memory:/a\n0::/b:c\n").as_deref(), Some("/b:c"));
        assert_eq!(cgroup("4:memory:/a\n").as_deref(), Some("/a"));
        assert_eq!(cgroup(""), None);
    }
}
