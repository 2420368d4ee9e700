//! The program's own help: its commands in groups, as there are too many for one list.

use std::fmt::Write;

use clap::Command;

/// Which commands are shown together.
const GROUPS: [(&str, &[&str]); 3] = [
    ("A host", &["serve", "config", "plugins", "backup"]),
    ("Its tasks, from anywhere", &["task", "queue", "dlq", "profile"]),
    ("This program", &["completions", "help"]),
];

/// The program with its commands in groups.
pub(super) fn grouped(mut program: Command) -> Command {
    program.build();
    let styles = program.get_styles().clone();
    let (heading, literal) = (*styles.get_header(), *styles.get_literal());
    let mut text = String::new();
    for (group, names) in GROUPS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{heading}{group}:{heading:#}");
        for name in names {
            let about = program.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<12}{literal:#} {about}");
        }
        text.push('\n');
    }
    program.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{text}{heading}Options:{heading:#}\n\
         {{options}}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let mut program = crate::cli::Cli::command();
        program.build();
        let shown = program.get_subcommands().filter(|command| !command.is_hide_set());
        let mut commands: Vec<_> = shown.map(|command| command.get_name().to_owned()).collect();
        let mut listed: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.to_vec()).collect();
        commands.sort();
        listed.sort_unstable();
        assert_eq!(listed, commands);
    }

    #[test]
    fn the_program_s_arguments_make_sense() {
        crate::cli::Cli::command().debug_assert();
    }
}
