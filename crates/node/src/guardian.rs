//! The guardian as JavaScript sees it: how it is started, and what is heard of it.

use std::path::PathBuf;
use std::sync::Arc;

use napi_derive::napi;
use uffd_core::guardian::{self, Launch};

use crate::outbox::{News, Outbox};

/// How a guardian is started.
#[napi(object, object_to_js = false)]
pub struct NativeGuardianOptions {
    pub path: String,
    pub cgroup: Option<String>,
    pub log: Option<String>,
}

impl NativeGuardianOptions {
    pub(crate) fn launch(&self) -> Launch {
        Launch {
            program: PathBuf::from(&self.path),
            cgroup: self.cgroup.as_ref().map(PathBuf::from),
            log: self.log.as_ref().map(PathBuf::from),
        }
    }
}

/// Tells the outbox what is heard of the guardian.
pub(crate) struct Hearing(pub(crate) Arc<Outbox>);

impl guardian::Observer for Hearing {
    fn heard(&self, news: guardian::News) {
        self.0.tell(News::Guardian(news));
    }
}

/// The guardian's program, which lies beside the file this code was loaded from: `uffd-rs.NAME.node`
/// and `uffd-rs-guardian.NAME`. Nothing where that file cannot be told.
#[napi(catch_unwind)]
pub fn guardian_program() -> Option<String> {
    let here = guardian_program as fn() -> Option<String> as usize as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let addon = maps.lines().find_map(|line| mapped_file(line, here))?;
    let name = addon.file_name()?.to_str()?.strip_prefix("uffd-rs.")?.strip_suffix(".node")?;
    Some(addon.with_file_name(format!("uffd-rs-guardian.{name}")).to_str()?.to_owned())
}

/// The file of a line of `/proc/PID/maps` (proc(5)), if it has `address` in it.
fn mapped_file(line: &str, address: u64) -> Option<PathBuf> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    if !(number(start)?..number(end)?).contains(&address) {
        return None;
    }
    Some(PathBuf::from(fields.nth(4)?.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_an_address_is_told_whatever_its_name() {
        let line = "7f00-7fff r-xp 00000000 08:01 123456          /a b/uffd-rs.linux-x64-gnu.node";
        let file = Some(PathBuf::from("/a b/uffd-rs.linux-x64-gnu.node"));
        assert_eq!(mapped_file(line, 0x7f00), file);
        assert_eq!(mapped_file(line, 0x7fff), None);
        assert_eq!(mapped_file("nonsense", 0), None);
    }
}
