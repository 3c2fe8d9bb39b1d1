//! A control group whose processes may have only so many huge pages, whatever the pool holds.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::case::HUGE;
use crate::hugepages::HugePages;

/// A group of its own. It goes when this does.
#[derive(Debug)]
pub struct HugeLimit<'a> {
    /// Whoever has the pool alone has the controller alone.
    _pool: &'a HugePages,
    group: PathBuf,
    /// The file that holds the limit.
    limit: &'static str,
    /// The controller was handed down to the group by us.
    handed_down: Option<PathBuf>,
}

impl<'a> HugeLimit<'a> {
    /// A group for so many huge pages. An error says why this host has none to give.
    pub fn of(pool: &'a HugePages, pages: u64) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (root, limit) = controller("hugetlb", FIRST, SECOND)?;
        let second = limit == SECOND;
        let handed_down = second.then(|| hand_down(&root, "hugetlb")).transpose()?.flatten();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = root.join(format!("uffd-rs-proof-{}-{number}", std::process::id()));
        let it = Self { _pool: pool, group, limit, handed_down };
        fs::create_dir(&it.group)?;
        it.set(pages)?;
        Ok(it)
    }

    /// Changes the limit.
    pub fn set(&self, pages: u64) -> io::Result<()> {
        fs::write(self.group.join(self.limit), (pages * HUGE).to_string())
    }

    /// The group, for a process to join.
    pub fn group(&self) -> &Path {
        &self.group
    }
}

impl Drop for HugeLimit<'_> {
    fn drop(&mut self) {
        let gone = fs::remove_dir(&self.group);
        let taken_back =
            self.handed_down.iter().try_for_each(|control| fs::write(control, "-hugetlb"));
        if let Err(error) = gone.and(taken_back) {
            let group = self.group.display();
            let _ = writeln!(io::stderr(), "cannot take {group} away: {error}");
        }
    }
}

/// Of the second version of control groups, and of the first.
const SECOND: &str = "hugetlb.2MB.max";
const FIRST: &str = "hugetlb.2MB.limit_in_bytes";

/// Where groups of a controller are made, and the name of its limit in either version.
pub(crate) fn controller(
    name: &str,
    first: &'static str,
    second: &'static str,
) -> io::Result<(PathBuf, &'static str)> {
    for line in fs::read_to_string("/proc/self/mounts")?.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, root, kind, options, ..] = fields[..] else { continue };
        let root = PathBuf::from(root);
        let has = |list: &str, by: char| list.trim_end().split(by).any(|it| it == name);
        match kind {
            "cgroup" if has(options, ',') => return Ok((root, first)),
            "cgroup2" => {
                let offered = fs::read_to_string(root.join("cgroup.controllers"))?;
                if has(&offered, ' ') {
                    return Ok((root, second));
                }
            }
            _ => {}
        }
    }
    Err(io::Error::other(format!("there is no {name} controller of control groups")))
}

/// Has groups below `root` use a controller. What to write to, to undo it, if they did not.
pub(crate) fn hand_down(root: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let control = root.join("cgroup.subtree_control");
    if fs::read_to_string(&control)?.split_whitespace().any(|it| it == name) {
        return Ok(None);
    }
    fs::write(&control, format!("+{name}"))?;
    Ok(Some(control))
}
