//! What loading and attaching take of a process (capabilities(7)), and what to do without.

use caps::{CapSet, Capability, has_cap};

/// Whether this process may use a capability now.
pub(crate) fn has(capability: Capability) -> bool {
    has_cap(None, CapSet::Effective, capability).unwrap_or_default()
}

/// Names of the capabilities that loading and attaching take and this process lacks.
pub(crate) fn missing() -> Vec<String> {
    use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN};
    // What each of them was split from, or what bpf(2) takes in its place.
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON]
        .into_iter()
        .filter(|capability| !has(*capability))
        .map(|capability| capability.to_string())
        .collect()
}

/// Why the kernel may have refused for want of rights, and the mend.
pub(crate) fn refusal() -> String {
    let (missing, root) = (missing(), nix::unistd::geteuid().is_root());
    match missing.len() {
        0 if root => {
            "refused even to root; the file system, a container or a security module forbids it"
                .to_owned()
        }
        0 => "needs the rights of root; run it with sudo".to_owned(),
        3 if !root => {
            "needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON); run it with sudo".to_owned()
        }
        _ => format!("needs {}, which this process lacks; {GRANT}", and(&missing)),
    }
}

/// Where capabilities are taken away, they are given back.
pub(crate) const GRANT: &str =
    "add it where its capabilities are cut (systemd: CapabilityBoundingSet, containers: --cap-add)";

/// `a, b and c`
pub(crate) fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_as_one_says_them() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(and(&names), "a, b and c");
        assert_eq!(and(&names[..2]), "a and b");
        assert_eq!(and(&names[..1]), "a");
        assert_eq!(and(&[]), "");
    }
}
