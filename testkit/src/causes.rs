use std::error::Error;
use std::iter::successors;

fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect()
}

/// An error and its causes, separated by `: `.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    texts(error).join(": ")
}

/// Three words in a row, articles aside, that an error has in common with one of its causes: a log line with both says
/// the same twice.
pub fn repetition(error: &(dyn Error + 'static)) -> Option<String> {
    const ARTICLES: [&str; 3] = ["a", "an", "the"];
    let runs: Vec<Vec<String>> = texts(error)
        .iter()
        .map(|text| {
            let words = text.split(|letter: char| letter.is_whitespace() || ":;,`".contains(letter));
            let words: Vec<&str> =
                words.filter(|word| !word.is_empty() && !ARTICLES.contains(word)).collect();
            words.windows(3).map(|run| run.join(" ")).collect()
        })
        .collect();
    let (first, causes) = runs.split_first()?;
    let mut earlier = first.clone();
    for cause in causes {
        if let Some(run) = cause.iter().find(|run| earlier.contains(run)) {
            return Some(run.clone());
        }
        earlier.extend_from_slice(cause);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn an_error_that_says_the_same_as_its_cause_is_found() {
        let of = |outer, cause: &'static str| repetition(&Outer(outer, io::Error::other(cause)));
        assert_eq!(
            of("cannot send the batch to the kernel; nothing was applied", "cannot send a batch of 40 bytes"),
            Some("cannot send batch".to_owned())
        );
        assert_eq!(of("nothing was applied", "cannot send a batch of 40 bytes"), None);
    }
}
