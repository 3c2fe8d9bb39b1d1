use napi_derive::napi;
use uffd_core::kernel;

/// Whether something can be used: `granted`, `denied` by the kernel to this process, `absent`
/// from the kernel, or `refused` for another reason.
#[napi(string_enum = "lowercase")]
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// It can.
    Granted,
    /// This process may not.
    Denied,
    /// The kernel does not have it.
    Absent,
    /// The kernel would not.
    Refused,
}

impl From<kernel::Access> for Access {
    fn from(access: kernel::Access) -> Self {
        match access {
            kernel::Access::Granted => Self::Granted,
            kernel::Access::Denied => Self::Denied,
            kernel::Access::Absent => Self::Absent,
            kernel::Access::Refused(_) => Self::Refused,
        }
    }
}

/// What this host lets this process do.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct Host {
    /// `userfaultfd(2)` for faults of the kernel too, which KVM needs.
    pub system_call: Access,
    /// `userfaultfd(2)` for faults of user mode only.
    pub user_mode_only: Access,
    /// `/dev/userfaultfd`, for faults of the kernel too.
    pub device: Access,
    /// The `UFFD_FEATURE_…` bits the kernel offers, if a userfaultfd can be had at all.
    pub features: Option<u64>,
    /// Descriptors of processes.
    pub pidfd: Access,
    /// `SO_PEERPIDFD`.
    pub peer_pidfd: Access,
    /// Memory with a descriptor.
    pub memfd: Access,
}

/// Whether this process may take a copy of a descriptor of another one, as it has to of a VMM whose
/// guest it takes over.
#[napi(catch_unwind)]
pub fn probe_descriptor(pid: i32, number: i32) -> Access {
    kernel::may_take_descriptor(pid, number).into()
}

/// Tries what serving needs, and leaves nothing behind.
#[napi(catch_unwind)]
pub fn probe_host() -> Host {
    let host = kernel::Host::probe();
    Host {
        system_call: host.system_call.into(),
        user_mode_only: host.user_mode_only.into(),
        device: host.device.into(),
        features: host.features,
        pidfd: host.pidfd.into(),
        peer_pidfd: host.peer_pidfd.into(),
        memfd: host.memfd.into(),
    }
}

/// Who is at the other end of the Unix socket with this descriptor.
#[napi(object, object_from_js = false)]
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its process id here; 0 where it cannot be seen from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// Who is at the other end of a connected Unix socket; `null` where the kernel cannot say.
#[napi(catch_unwind)]
pub fn peer_of(number: i32) -> Option<Peer> {
    kernel::peer_of(number).ok().map(|kernel::Peer { pid, uid }| Peer { pid, uid })
}

/// The version of the native part, which is that of the package.
#[napi]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
