//! `render`: the libvirt XML of the guests.

use super::args::RenderArgs;
use super::{Outcome, load};
use crate::host::{print, write_output};
use crate::plan::Scope;
use crate::plan::restore::Past;

pub(super) fn run(args: &RenderArgs) -> Outcome {
    let profile = load::read_profile(&args.profile)?;
    let plan =
        load::make_plan(&load::machine(&args.root), &profile.parsed, Scope::Everything, &Past::default())?;
    let wanted = |name: &str| args.guest.as_deref().is_none_or(|guest| guest == name);
    let guests: Vec<_> = plan.guests.iter().filter(|guest| wanted(&guest.name)).collect();
    if let (true, Some(name)) = (guests.is_empty(), &args.guest) {
        let names: Vec<_> = plan.guests.iter().map(|guest| guest.name.as_str()).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        return Err(format!("{}: there is no guest `{name}`; guests are: {names}", args.profile.display()));
    }
    match &args.output_dir {
        Some(dir) => guests
            .iter()
            .try_for_each(|guest| write_output(&dir.join(format!("{}.xml", guest.name)), &guest.xml))?,
        None => print(&guests.iter().map(|guest| guest.xml.as_str()).collect::<String>())?,
    }
    Ok(0)
}
