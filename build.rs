//! Compiles bpf/*.bpf.c and generates the skeletons the crate embeds.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

/// `-mcpu` is named because a newer clang changes its default; v2 is what every 5.10 port accepts.
const CLANG_ARGS: [&str; 4] = ["-mcpu=v2", "-Wall", "-Wextra", "-Werror"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    // `-target bpf` does not know where Debian keeps asm/; any architecture's copy serves.
    let include = ["x86_64", "aarch64"].map(|host| format!("-I/usr/include/{host}-linux-gnu"));
    for name in ["shield", "floor", "proof"] {
        let args = CLANG_ARGS
            .iter()
            .map(|arg| (*arg).to_owned())
            .chain(include.clone());
        SkeletonBuilder::new()
            .source(format!("bpf/{name}.bpf.c"))
            .clang_args(args)
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .map_err(|error| format!("bpf/{name}.bpf.c for {arch}: {error:#}"))?;
    }
    // Tells a newer program from the one that runs; see dataplane::load.
    let shield = std::fs::read(out.join("shield.skel.rs"))?;
    println!("cargo:rustc-env=KERNLOOM_PROGRAM_HASH={}", fnv1a(&shield));
    println!("cargo:rerun-if-changed=bpf");
    Ok(())
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): only has to differ when the program does.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
