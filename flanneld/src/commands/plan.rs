//! `flanneld plan`: what a start would change on this host.

use std::error::Error;
use std::fmt::Write as _;

use flannel_nft::Kernel as _;
use flannel_vxlan::Kernel as _;

use super::survey::Survey;
use super::{SOMETHING, Verdict};
use crate::config::Config;
use crate::rules;

/// Reads configuration, leases and kernel, and prints the difference as commands. Changes nothing and takes no lease: a
/// lease file is read from a copy.
///
/// # Errors
/// What stands in the way of a start, or of reading the kernel.
pub async fn run(config: Config) -> Result<Verdict, Box<dyn Error>> {
    let subnet_file = config.subnet_file.clone();
    let mut links = flannel_vxlan::Netlink::open()?;
    let mut nft = flannel_nft::Netlink::open()?;
    let survey = Survey::take(config, &mut links).await?;
    let mut text = String::new();
    if survey.published.is_none() {
        writeln!(text, "# This node has no lease yet; as if it were given {}.", survey.lease)?;
    }

    let ruleset = rules::ruleset(&survey.setting.rules(survey.lease))?;
    let script = flannel_nft::diff(&ruleset, &nft.observe(&ruleset.scope())?).to_string();
    let mut overlay = survey.overlay(&mut links)?;
    let commands = overlay.diff(&links.observe(&overlay.links())?);
    let env = survey.setting.subnet_env(survey.lease).to_string();
    let env_stands = std::fs::read(&subnet_file).is_ok_and(|present| present == env.as_bytes());

    if !script.is_empty() {
        write!(text, "nft -f - <<'END'\n{script}END\n")?;
    }
    write!(text, "{commands}")?;
    for taken in commands.taken() {
        writeln!(text, "# {taken}")?;
    }
    if !env_stands {
        write!(text, "cat > {} <<'END'\n{env}END\n", subnet_file.display())?;
    }
    let nothing = script.is_empty() && commands.is_empty() && commands.taken().is_empty() && env_stands;
    if nothing {
        writeln!(text, "# Nothing to change.")?;
    }
    Ok(Verdict { text, code: if nothing { 0 } else { SOMETHING } })
}
