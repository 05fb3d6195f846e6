//! A private nginx on the server, both families, ports 80 and 8001 to 8011. One process, so that one
//! pid ends it.

use std::time::Duration;

use super::process::Process;
use super::wait::wait_until;
use super::{Lab, LabError, Result};

/// What the server answers to every request.
pub(crate) const PAGE: &str = "kernloom lab\n";

/// A running nginx; ends on drop.
pub(crate) struct WebServer {
    process: Process,
}

impl WebServer {
    /// Starts it and waits until it answers over both families.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.dir().join("nginx");
        let fail = |e: std::io::Error| LabError::new(format!("writing {}", dir.display()), e);
        std::fs::create_dir_all(&dir).map_err(fail)?;
        let conf = dir.join("nginx.conf");
        std::fs::write(&conf, config(&dir.display().to_string())).map_err(fail)?;
        let (prefix, conf) = (dir.display().to_string(), conf.display().to_string());
        let args = ["-p", &prefix, "-c", &conf, "-e", "stderr"];
        let mut web = Self {
            process: lab.server().net.spawn("nginx", &args)?,
        };
        for url in [
            format!("http://{}/", lab.server().v4),
            format!("http://[{}]/", lab.server().v6),
        ] {
            wait_until(Duration::from_secs(10), &format!("nginx at {url}"), || {
                if let Some(status) = web.process.ended()? {
                    let why = format!("{status}: {}", web.process.text());
                    return Err(LabError::new("running nginx", why));
                }
                let curl = ["-s", "--noproxy", "*", "--max-time", "1", &url];
                Ok(lab
                    .server()
                    .net
                    .run("curl", &curl)
                    .is_ok_and(|page| page == PAGE))
            })?;
        }
        Ok(web)
    }

    /// The process, to signal or to read what it said.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn config(dir: &str) -> String {
    let body = PAGE.trim_end();
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let listen: String = [80]
        .into_iter()
        .chain(8001..=8011)
        .map(|port| {
            format!("    listen {port} backlog=4096;\n    listen [::]:{port} backlog=4096;\n")
        })
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n{temp}  server {{\n{listen}    \
         location / {{ default_type text/plain; return 200 \"{body}\\n\"; }}\n  }}\n}}\n"
    )
}
