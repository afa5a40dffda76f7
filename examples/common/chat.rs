//! What both chat rooms have in common: the words, and what makes a name.

/// For `--help`, and for members that try commands.
pub const HELP: &str = "The first line is your name; each later one goes to all others. /who, /nick NAME, /quit";

/// Longest name.
const NAME: usize = 32;

/// Without what would play tricks on the others' terminals.
pub fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect()
}

/// Whether a member may be called so, and otherwise what to tell him.
pub fn check_name<'a>(name: &str, mut others: impl Iterator<Item = &'a String>) -> Result<(), String> {
    if name.is_empty() || name.starts_with('/') || name.chars().count() > NAME {
        return Err(format!("A name has up to {NAME} characters and no / in front. Yours?"));
    }
    if others.any(|other| other == name) {
        return Err("Somebody has that name. Another one?".to_owned());
    }
    Ok(())
}
