//! What this binary is built from.

use std::sync::LazyLock;

/// What `--version` prints after the name: the release, the commit, libbpf's release, and the
/// SHA-256 of each BPF object that is embedded.
pub(crate) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // SAFETY: both only return a constant of the library.
        let (major, minor) = unsafe {
            (
                libbpf_sys::libbpf_major_version(),
                libbpf_sys::libbpf_minor_version(),
            )
        };
        let objects = env!("KERNLOOM_BPF").replace(", ", "\nbpf ");
        format!(
            "{}\ncommit {}\nlibbpf {major}.{minor}\nbpf {objects}",
            env!("CARGO_PKG_VERSION"),
            env!("KERNLOOM_COMMIT"),
        )
    });
    &TEXT
}

#[cfg(test)]
mod tests {
    /// Else two builds in two places differ.
    #[test]
    fn a_bpf_object_does_not_name_the_place_it_was_built_in() {
        let place = env!("CARGO_MANIFEST_DIR").as_bytes();
        let objects: [&[u8]; 4] = [
            include_bytes!(concat!(env!("OUT_DIR"), "/shield.o")),
            include_bytes!(concat!(env!("OUT_DIR"), "/floor.o")),
            include_bytes!(concat!(env!("OUT_DIR"), "/proof.o")),
            include_bytes!(concat!(env!("OUT_DIR"), "/refusals.o")),
        ];
        for object in objects {
            let names = object.windows(place.len()).any(|bytes| bytes == place);
            assert!(!names);
        }
    }
}
