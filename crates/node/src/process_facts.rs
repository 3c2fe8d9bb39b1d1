use napi_derive::napi;

/// What the kernel says of a guest's process.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    /// The name of its program, at most 15 bytes; it can give itself another.
    pub name: Option<String>,
    /// Its cgroup, in the unified hierarchy if there is one.
    pub cgroup: Option<String>,
    /// Its root directory, as this process sees it: that of its jail, if it is in one.
    pub root: Option<String>,
}
