use crate::profile::Setting;

/// A profile as YAML, every value followed by who set it. It reads back as a profile.
pub fn settings_yaml(name: &str, settings: &[Setting]) -> String {
    let mut text = format!(
        "apiVersion: {}\nkind: {}\nmetadata:\n  name: {name}\nspec:\n",
        crate::profile::schema::API_VERSION,
        crate::profile::schema::KIND
    );
    let mut open: Vec<&str> = Vec::new();
    for setting in settings {
        let path: Vec<&str> = setting.key.split('.').collect();
        let Some((last, sections)) = path.split_last() else {
            continue;
        };
        let common = open
            .iter()
            .zip(sections)
            .take_while(|(a, b)| a == b)
            .count();
        for (depth, section) in sections.iter().enumerate().skip(common) {
            text.push_str(&format!("{}{section}:\n", "  ".repeat(depth + 1)));
        }
        open = sections.to_vec();
        let line = format!(
            "{}{last}: {}",
            "  ".repeat(sections.len() + 1),
            setting.value
        );
        text.push_str(&format!("{line:<44}# {}\n", setting.origin));
    }
    text
}
