//! `kernloom iq`: the daemon, and what speaks to it.

mod run;

use crate::cli::{IqArgs, IqCommand, IqRunArgs, ProfilesCommand};
use crate::error::{Error, Result};
use crate::host::{Host, IqHost};
use crate::profile::{Effective, Overrides, Profile, ProfileError};
use crate::report::{Table, print, settings_yaml};

/// The log target of everything IQ says.
const IQ: &str = "iq";

impl From<ProfileError> for Error {
    fn from(error: ProfileError) -> Self {
        if error.is_operator_mistake() {
            Self::operator(error.to_string())
        } else {
            Self::world(error.to_string())
        }
    }
}

pub(super) fn run(host: &Host, args: &IqArgs) -> Result<()> {
    match &args.command {
        None => {
            let settings = Settings::read(host, &args.run)?;
            if args.run.print_config {
                return print(&settings_yaml(
                    &settings.name,
                    &settings.effective.settings(),
                ));
            }
            run::run(host, settings)
        }
        Some(IqCommand::Profiles(command)) => profiles(command),
        Some(_) => Ok(()),
    }
}

fn profiles(command: &ProfilesCommand) -> Result<()> {
    match command {
        ProfilesCommand::List => {
            let mut table = Table::new(["PROFILE", "FOR"]);
            for name in Profile::names() {
                let profile = Profile::named(name)?;
                table.row([name.to_owned(), profile.description().to_owned()]);
            }
            let sizes = "Sizes of the tables, whatever the profile: --sizing=standard, \
                         --sizing=raspberry-pi\n";
            print(&format!("{}{sizes}", table.render()))
        }
        ProfilesCommand::Show { name } => print(Profile::text(name)?),
    }
}

/// What this run goes by.
struct Settings {
    /// Name of the profile, or path of the file.
    name: String,
    effective: Effective,
    overrides: Overrides,
    iq: IqHost,
    fresh_state: bool,
}

impl Settings {
    fn read(host: &Host, args: &IqRunArgs) -> Result<Self> {
        let iq = host.iq(&args.host);
        let overrides = Overrides {
            soft_ttl: args.soft_ttl,
            hard_ttl: args.hard_ttl,
            block_ttl: args.block_ttl,
            block_min_sev: args.block_min_sev,
            block_min_dur: args.block_min_dur,
            bootstrap_allow_block: args.bootstrap_allow_block,
            set: args.set.clone(),
        };
        let (name, profile) = judged_by(&iq)?;
        let effective = profile.effective(&overrides)?;
        effective.config()?;
        Ok(Self {
            name,
            effective,
            overrides,
            iq,
            fresh_state: args.fresh_state,
        })
    }
}

/// The profile, the file, or the file laid over the profile.
fn judged_by(iq: &IqHost) -> Result<(String, Profile)> {
    match (&iq.profile, &iq.pdp_config) {
        (Some(name), None) => Ok((name.clone(), Profile::named(name)?)),
        (base, Some(path)) => {
            let mut profile = Profile::read(path)?;
            if let Some(base) = base {
                profile = profile.over(Profile::named(base)?);
            }
            Ok((profile.name().to_owned(), profile))
        }
        (None, None) => Err(Error::operator(
            "give --profile or --pdp-config, or set 'profile' in /etc/kernloom/kernloom.toml; \
             'kernloom iq profiles list' names the profiles",
        )),
    }
}
