//! Where Kernloom runs and keeps things, as opposed to how it judges: the command line laid over
//! `/etc/kernloom/kernloom.toml` laid over defaults.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use file::HostFile;

use crate::cli::{HostArgs, IqHostArgs, LogFormat, Places, Sizing};
use crate::dataplane::DEFAULT_PIN_DIR;
use crate::error::{Doing, Error, Result};
use crate::model::Source;
use crate::store::write_whole;
use crate::trust;

pub const DEFAULT_CONFIG: &str = "/etc/kernloom/kernloom.toml";
const DEFAULT_INSTANCE: &str = "kernloom";
const DEFAULT_TICK: Duration = Duration::from_secs(1);

/// What every command goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    pub instance: String,
    pub places: Places,
    pub state_dir: PathBuf,
    pub log_format: LogFormat,
    /// Sources that no automatic rule may touch.
    pub management: Vec<Source>,
    /// Named sets of sources.
    pub groups: BTreeMap<String, Vec<Source>>,
    /// Whether the command line names some of them.
    pub groups_given: bool,
    /// What is wrong with the settings although they, or a copy of them, are gone by.
    pub trouble: Option<String>,
    /// Where the settings are, or would be.
    pub config: PathBuf,
    /// The rest of the file, for `iq`.
    file: HostFile,
}

/// What `iq` goes by besides.
#[derive(Debug, Clone, PartialEq)]
pub struct IqHost {
    pub iface: Vec<String>,
    pub profile: Option<String>,
    pub pdp_config: Option<PathBuf>,
    /// That of the settings, where the command line names another profile or file.
    pub unused_pdp_config: Option<PathBuf>,
    /// That of the settings, where the command line names a file alone.
    pub unused_profile: Option<String>,
    pub dry_run: bool,
    pub interval: Duration,
    pub whitelist: PathBuf,
    /// Named by a flag or the settings: it should be there.
    pub whitelist_named: bool,
    pub whitelist_learn: bool,
    pub feedback: PathBuf,
    pub journal: PathBuf,
    pub store: PathBuf,
    pub metrics_listen: Option<SocketAddr>,
    pub metrics_textfile: Option<PathBuf>,
    pub sizing: Sizing,
    /// Entries of the source table over all CPUs.
    pub sources: u32,
    /// Most policy entries.
    pub max_deny: u32,
}

impl IqHost {
    /// The whitelist, if somebody named it and it is not there.
    pub fn missing_whitelist(&self) -> Option<&Path> {
        let missing = self.whitelist_named && matches!(self.whitelist.try_exists(), Ok(false));
        missing.then_some(&self.whitelist)
    }
}

impl Host {
    /// # Errors
    /// Operator's, if the file cannot be read although it was named, or says something wrong.
    pub fn resolve(args: &HostArgs) -> Result<Self> {
        if let Some(path) = &args.environment_file {
            trust::refuse_changeable_at(path).map_err(|error| {
                Error::operator(format!("cannot go by {}: {error}", path.display()))
            })?;
        }
        let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        let read = match &args.config {
            // As everywhere: nothing, whatever the settings of this host say.
            Some(path) if path == Path::new("/dev/null") => Ok(HostFile::default()),
            Some(path) => HostFile::read(path),
            None => HostFile::read_if_there(path),
        };
        let Some(copy) = &args.settings_copy else {
            return Self::of(args, read?);
        };
        let made = read.and_then(|file| Self::of(args, file));
        let (host, trouble) = match made {
            Ok(host) => (
                host,
                keep_copy(path, copy).err().map(|error| error.to_string()),
            ),
            Err(error) => match HostFile::read(copy).and_then(|file| Self::of(args, file)) {
                Ok(host) => {
                    let copy = copy.display();
                    (
                        host,
                        Some(format!("{error}; going by what was there before ({copy})")),
                    )
                }
                Err(_) => return Err(error),
            },
        };
        Ok(Self { trouble, ..host })
    }

    fn of(args: &HostArgs, file: HostFile) -> Result<Self> {
        let given = args.instance.clone().or_else(|| file.instance.clone());
        let instance = given.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if instance.is_empty() || !instance.chars().all(plain) {
            return Err(Error::operator(format!(
                "instance '{instance}': use letters, digits, '-' and '_', as in 'edge-1'"
            )));
        }
        // The default instance has the plain names; another one stands beside it.
        let path = |flag: &Option<PathBuf>, key: &Option<PathBuf>, default: &str| {
            let given = flag.clone().or_else(|| key.clone());
            let mut path = given
                .unwrap_or_else(|| PathBuf::from(default))
                .into_os_string();
            if instance != DEFAULT_INSTANCE {
                path.push(format!("-{instance}"));
            }
            PathBuf::from(path)
        };
        let places = Places {
            bpffs: path(&args.bpffs, &file.bpffs, DEFAULT_PIN_DIR),
            run_dir: path(&args.run_dir, &file.run_dir, "/run/kernloom"),
        };
        let state_dir = path(&args.state_dir, &file.state_dir, "/var/lib/kernloom/iq");
        let mut groups = file.group.clone().unwrap_or_default();
        for group in &args.group {
            groups.insert(group.name.clone(), group.sources.clone());
        }
        let management = if args.management.is_empty() {
            file.management.clone().unwrap_or_default()
        } else {
            args.management.clone()
        };
        Ok(Self {
            instance,
            places,
            state_dir,
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            management,
            groups,
            groups_given: !args.group.is_empty(),
            trouble: None,
            config: args
                .config
                .clone()
                .filter(|path| path != Path::new("/dev/null"))
                .unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG)),
            file,
        })
    }

    /// Those that the settings name.
    pub fn interfaces(&self) -> &[String] {
        self.file.iface.as_deref().unwrap_or_default()
    }

    /// Where the graph is kept.
    pub fn graph_store(&self, flag: Option<&PathBuf>) -> PathBuf {
        flag.or(self.file.store.as_ref())
            .cloned()
            .unwrap_or_else(|| self.state_dir.join("graph.db"))
    }

    /// The settings of `iq`. A profile or file on the command line replaces both in the file, so
    /// that a command line never lands on a profile it does not name.
    pub fn iq(&self, args: &IqHostArgs) -> IqHost {
        let file = &self.file;
        let named = args.profile.is_some() || args.pdp_config.is_some();
        let (profile, pdp_config, unused) = if named {
            let unused = file.pdp_config.clone();
            let unused = unused.filter(|path| args.pdp_config.as_ref() != Some(path));
            (args.profile.clone(), args.pdp_config.clone(), unused)
        } else {
            (file.profile.clone(), file.pdp_config.clone(), None)
        };
        let alone = args.pdp_config.is_some() && args.profile.is_none();
        let unused_profile = file.profile.clone().filter(|_| alone);
        let iface = if args.iface.is_empty() {
            file.iface.clone().unwrap_or_default()
        } else {
            args.iface.clone()
        };
        let below = |name: &str| self.state_dir.join(name);
        let path = |flag: &Option<PathBuf>, key: &Option<PathBuf>, name: &str| {
            let given = flag.clone().or_else(|| key.clone());
            given.unwrap_or_else(|| below(name))
        };
        let sizing = args.sizing.or(file.sizing).unwrap_or_default();
        IqHost {
            iface,
            profile,
            pdp_config,
            unused_pdp_config: unused,
            unused_profile,
            dry_run: args.dry_run.or(file.dry_run).unwrap_or(true),
            interval: args.interval.or(file.interval).unwrap_or(DEFAULT_TICK),
            whitelist: path(&args.whitelist, &file.whitelist, "whitelist.txt"),
            whitelist_named: args.whitelist.is_some() || file.whitelist.is_some(),
            whitelist_learn: args
                .whitelist_learn
                .or(file.whitelist_learn)
                .unwrap_or(false),
            feedback: path(&args.feedback, &file.feedback, "feedback.json"),
            journal: path(&args.journal, &file.journal, "journal.jsonl"),
            store: self.graph_store(args.store.as_ref()),
            metrics_listen: args.metrics_listen.or(file.metrics_listen),
            metrics_textfile: args
                .metrics_textfile
                .clone()
                .or_else(|| file.metrics_textfile.clone()),
            sizing,
            sources: args.sources.or(file.sources).unwrap_or(sizing.sources()),
            max_deny: args.max_deny.or(file.max_deny).unwrap_or(sizing.max_deny()),
        }
    }
}

/// Makes `copy` say what the settings say; nothing, where there are none.
fn keep_copy(settings: &Path, copy: &Path) -> Result<()> {
    refuse_other_than_file(copy)?;
    let text = match trust::read_settings(settings) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).doing(|| format!("copying {}", settings.display())),
    };
    if trust::read_settings(copy).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    if let Some(dir) = copy.parent() {
        trust::make_dir(dir).doing(|| format!("making {}", dir.display()))?;
    }
    write_whole(copy, &text)
}

/// A device, socket or pipe would be gone for everybody else who uses it. A link is followed: what it
/// leads to is replaced, and judged by.
fn refuse_other_than_file(copy: &Path) -> Result<()> {
    match fs::metadata(copy) {
        Ok(about) if about.is_file() => Ok(()),
        Ok(_) => Err(Error::operator(format!(
            "--settings-copy {}: it is there and no regular file; give the path of a file, which need not be there yet",
            copy.display()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).doing(|| format!("looking at {}", copy.display())),
    }
}
