//! What a command may do: capabilities and limits.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities,
};

use super::super::spec::Ulimit;
use super::sys;

/// What root keeps in a container (moby `oci/caps/defaults.go`).
const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The names of these, as they are in `linux/capability.h`.
pub(super) fn default_names() -> Vec<String> {
    DEFAULT.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// No program that the command executes gets more than [`DEFAULT`].
pub(super) fn limit_programs() -> io::Result<()> {
    for capability in CapabilitySet::all() - DEFAULT {
        // Older kernels do not know the newest.
        if capability_is_in_bounding_set(capability) == Ok(true) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

/// This process gives up what is not in [`DEFAULT`], as far as it has it, and what it would pass on.
pub(super) fn drop_capabilities() -> io::Result<()> {
    let kept = capabilities(None)?.permitted & DEFAULT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Sets the limits of this process. Raising them takes a right that a user namespace does not give.
pub(super) fn set_limits(limits: &[Ulimit]) -> io::Result<()> {
    for Ulimit { name, soft, hard } in limits {
        let unknown = || io::Error::other(format!("`{name}` is no limit"));
        let number = Ulimit::number(name).ok_or_else(unknown)?;
        let value = |limit: i64| u64::try_from(limit).unwrap_or(libc::RLIM_INFINITY);
        sys::set_limit(number, value(*soft), value(*hard))
            .map_err(|error| io::Error::other(format!("the limit `{name}` cannot be {soft}:{hard}: {error}")))?;
    }
    Ok(())
}
