//! Variants of the program, compiled here and loaded over the maps of an instance.

use std::fs;
use std::path::{Path, PathBuf};

use kernloom::dataplane::PinDir;
use libbpf_cargo::SkeletonBuilder;
use libbpf_rs::{Object, ObjectBuilder, ProgramInput, ProgramMut};

/// As in build.rs, less its warnings: a mutant may leave a function unused.
const CLANG_ARGS: [&str; 3] = [
    "-mcpu=v2",
    "-I/usr/include/x86_64-linux-gnu",
    "-I/usr/include/aarch64-linux-gnu",
];

/// One replacement in one file of bpf/.
#[derive(Debug, Clone, Copy)]
pub struct Patch {
    pub file: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

pub struct Variant {
    program: ProgramMut<'static>,
}

impl Variant {
    /// Compiles bpf/ as patched and loads `program` over the maps pinned in `pins`.
    pub fn load(pins: &PinDir, program: &'static str, patch: Option<&Patch>) -> Self {
        let [variant] = Self::load_all(pins, [program], patch);
        variant
    }

    /// The same for several programs of one object.
    pub fn load_all<const N: usize>(
        pins: &PinDir,
        programs: [&'static str; N],
        patch: Option<&Patch>,
    ) -> [Self; N] {
        let dir = tempfile::tempdir().unwrap();
        let source = patched(dir.path(), patch);
        let object = dir.path().join("variant.bpf.o");
        SkeletonBuilder::new()
            .source(source)
            .obj(&object)
            .clang_args(CLANG_ARGS)
            .build()
            .unwrap_or_else(|error| panic!("{patch:?}: {error:#}"));
        let mut open = ObjectBuilder::default().open_file(&object).unwrap();
        for mut program in open.progs_mut() {
            let wanted = programs.iter().any(|name| program.name() == *name);
            program.set_autoload(wanted);
        }
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let pin = pins.path().join(pin_of(&name));
            if pin.exists() {
                map.reuse_pinned_map(pin)
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            } else if !pins.path().join("graphs").exists() {
                // Of an edge stage that the instance was loaded without.
                map.set_autocreate(false).unwrap();
            }
        }
        let object = open
            .load()
            .unwrap_or_else(|error| panic!("{patch:?}: {error:#}"));
        // Lives as long as the test: what the programs borrow from is never given back.
        let object: &'static mut Object = Box::leak(Box::new(object));
        let mut loaded: Vec<_> = object.progs_mut().collect();
        programs.map(|name| {
            let at = loaded.iter().position(|one| one.name() == name).unwrap();
            Self {
                program: loaded.swap_remove(at),
            }
        })
    }

    /// Whether the frame was dropped.
    pub fn run(&self, frame: &[u8]) -> bool {
        self.returned(frame) != libbpf_sys::XDP_PASS
    }

    /// The program's own answer.
    pub fn returned(&self, frame: &[u8]) -> u32 {
        let input = ProgramInput {
            data_in: Some(frame),
            ..ProgramInput::default()
        };
        let output = self.program.test_run(input).unwrap();
        output.return_value
    }
}

fn pin_of(map: &str) -> &str {
    match map {
        "kl_layouts" => "layout",
        ".bss.graph" => "graph",
        name if name.ends_with(".rodata") => "config",
        name if name.ends_with(".bss") => "control",
        name => name.trim_start_matches("kl_"),
    }
}

/// A copy of bpf/ in `dir`; the program's source in it.
fn patched(dir: &Path, patch: Option<&Patch>) -> PathBuf {
    let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    for entry in fs::read_dir(bpf).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        if let Some(patch) = patch.filter(|patch| patch.file == name) {
            assert_eq!(text.matches(patch.from).count(), 1, "{patch:?}");
            text = text.replace(patch.from, patch.to);
        }
        fs::write(dir.join(name), text).unwrap();
    }
    dir.join("shield.bpf.c")
}
