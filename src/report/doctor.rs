use serde::Serialize;

use super::json::document;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Fine,
    /// Works, but worse than it could.
    Notice,
    /// Nothing works until it is mended.
    Prevents,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Notice => "notice",
            Self::Prevents => "prevents",
        }
    }
}

/// One thing examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub subject: &'static str,
    /// The one it is about; `None` where it is about the host.
    pub interface: Option<String>,
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub mend: String,
}

pub fn doctor_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&format!(
            "{:<8}  {:<9}  {}\n",
            finding.level.name(),
            finding.subject,
            finding.found
        ));
        if !finding.mend.is_empty() {
            text.push_str(&format!("{:21}mend: {}\n", "", finding.mend));
        }
    }
    text
}

pub fn doctor_json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct FindingJson<'a> {
        /// `fine`, `notice` or `prevents`.
        level: &'static str,
        subject: &'static str,
        /// Null where it is about the host.
        interface: Option<&'a str>,
        found: &'a str,
        /// Null where nothing is to be done.
        mend: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Doctor<'a> {
        works: bool,
        findings: Vec<FindingJson<'a>>,
    }
    document(
        "doctor",
        &Doctor {
            works: findings
                .iter()
                .all(|finding| finding.level != Level::Prevents),
            findings: findings
                .iter()
                .map(|finding| FindingJson {
                    level: finding.level.name(),
                    subject: finding.subject,
                    interface: finding.interface.as_deref(),
                    found: &finding.found,
                    mend: (!finding.mend.is_empty()).then_some(finding.mend.as_str()),
                })
                .collect(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let findings = [
            Finding {
                level: Level::Fine,
                subject: "kernel",
                interface: None,
                found: "6.1.0".to_owned(),
                mend: String::new(),
            },
            Finding {
                level: Level::Notice,
                subject: "lro",
                interface: Some("eth0".to_owned()),
                found: "on".to_owned(),
                mend: "ethtool -K eth0 lro off".to_owned(),
            },
        ];
        assert_eq!(
            doctor_text(&findings),
            "fine      kernel     6.1.0\n\
             notice    lro        on\n                     mend: ethtool -K eth0 lro off\n"
        );
        assert_eq!(
            doctor_json(&findings),
            "{\"schema\":\"kernloom.doctor/1\",\"works\":true,\"findings\":[{\"level\":\"fine\",\"subject\":\"kernel\",\"interface\":null,\"found\":\"6.1.0\",\
             \"mend\":null},{\"level\":\"notice\",\"subject\":\"lro\",\
             \"interface\":\"eth0\",\"found\":\"on\",\"mend\":\"ethtool -K eth0 lro off\"}]}\n"
        );
    }
}
