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
    for name in ["shield", "floor"] {
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
    println!("cargo:rerun-if-changed=bpf");
    Ok(())
}
