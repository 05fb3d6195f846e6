//! Compiles bpf/*.bpf.c, generates the skeletons the crate embeds, and notes what it is built from.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;
use sha2::{Digest, Sha256};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// `-mcpu` is named because a newer clang changes its default; v2 is what every 5.10 port accepts.
const CLANG_ARGS: [&str; 4] = ["-mcpu=v2", "-Wall", "-Wextra", "-Werror"];

fn main() -> Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    // `-target bpf` does not know where Debian keeps asm/; any architecture's copy serves.
    let include = ["x86_64", "aarch64"].map(|host| format!("-I/usr/include/{host}-linux-gnu"));
    // Line information names the sources; where they lie must not make another object.
    let place = [
        format!("-ffile-prefix-map={}/=", env::var("CARGO_MANIFEST_DIR")?),
        "-ffile-compilation-dir=.".to_owned(),
    ];
    let mut hashes = Vec::new();
    for name in ["shield", "floor", "proof", "refusals"] {
        let args = CLANG_ARGS
            .iter()
            .map(|arg| (*arg).to_owned())
            .chain(include.clone())
            .chain(place.clone());
        let object = out.join(format!("{name}.o"));
        SkeletonBuilder::new()
            .source(format!("bpf/{name}.bpf.c"))
            .clang_args(args)
            .obj(&object)
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .map_err(|error| format!("bpf/{name}.bpf.c for {arch}: {error:#}"))?;
        let digest = Sha256::digest(fs::read(&object)?);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hashes.push(format!("{name} sha256:{digest}"));
    }
    // Tells a newer program from the one that runs; see dataplane::load.
    let shield = fs::read(out.join("shield.skel.rs"))?;
    println!("cargo:rustc-env=KERNLOOM_PROGRAM_HASH={}", fnv1a(&shield));
    println!("cargo:rustc-env=KERNLOOM_BPF={}", hashes.join(", "));
    println!("cargo:rustc-env=KERNLOOM_COMMIT={}", commit()?);
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=KERNLOOM_COMMIT");
    Ok(())
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): only has to differ when the program does.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The commit built from: the environment's word, for sources without a repository, else git's.
fn commit() -> Result<String> {
    if let Ok(told) = env::var("KERNLOOM_COMMIT") {
        return Ok(told);
    }
    let git = |args: &[&str]| -> Option<String> {
        let output = Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return Ok("unknown".to_owned());
    };
    // Every commit and checkout appends to the log of HEAD.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            .filter(|p| fs::exists(p).is_ok_and(|there| there))
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    Ok(commit)
}
