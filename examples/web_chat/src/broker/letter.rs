//! What servers write to each other: one line, `SERVER SAID KIND REST`.

/// A letter to the other servers of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// A member has said this, `NAME: TEXT`. It alone is counted: the others can be told again by [`Here`](Self::Here).
    Said(String),
    /// A member has come.
    Joined(String),
    /// A member has gone.
    Left(String),
    /// All members of the server that writes.
    Here(Vec<String>),
}

/// A letter as it has arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    pub from: String,
    /// How much has been said in its server so far.
    pub said: u64,
    pub letter: Letter,
}

impl Letter {
    pub fn write(&self, from: &str, said: u64) -> String {
        let (kind, rest) = match self {
            Self::Said(text) => ("said", text.clone()),
            Self::Joined(name) => ("joined", name.clone()),
            Self::Left(name) => ("left", name.clone()),
            Self::Here(names) => ("here", names.join(",")), // a name has no comma
        };
        format!("{from} {said} {kind} {rest}")
    }
}

impl Arrived {
    /// `None` for what no server of this kind has written.
    pub fn read(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        let (from, said, kind, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let letter = match kind {
            "said" => Letter::Said(rest.to_owned()),
            "joined" => Letter::Joined(rest.to_owned()),
            "left" => Letter::Left(rest.to_owned()),
            "here" => Letter::Here(rest.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()),
            _ => return None,
        };
        Some(Self { from: from.to_owned(), said: said.parse().ok()?, letter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_arrive_as_they_were_written_and_others_are_none() {
        let names = vec!["a b".to_owned(), "c".to_owned()];
        let letters = [Letter::Said("a b: c, d: e".into()), Letter::Left("a b".into()), Letter::Here(names)];
        for letter in letters {
            let arrived = Arrived { from: "x1".into(), said: 7, letter: letter.clone() };
            assert_eq!(Arrived::read(&letter.write("x1", 7)), Some(arrived));
        }
        for line in ["", "x1", "x1 7 said", "x1 7 shouted a", "x1 -7 said a", "x1 seven said a"] {
            assert_eq!(Arrived::read(line), None, "{line:?}");
        }
    }
}
