//! Syntax of other programs in a prompt.

/// The web UIs' syntax in a prompt, one sentence each.
pub(crate) fn foreign_syntax(prompt: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |found: Option<&str>, what: &str| {
        if let Some(found) = found {
            notes.push(format!("{found:?} in the prompt is read as plain text; {what}"));
        }
    };
    let network = enclosed(prompt, '<', '>')
        .find(|inner| ["<lora:", "<lyco:", "<hypernet:"].iter().any(|start| inner.to_lowercase().starts_with(start)));
    note(network, "networks are not loaded from prompts, but by `generate --lora`");
    let weight = enclosed(prompt, '(', ')').find(|inner| ends_in_number(inner) || inner.starts_with("(("));
    note(weight, "weights of words are not supported");
    let editing =
        enclosed(prompt, '[', ']').find(|inner| inner.matches([':', '|']).count() > 1 || ends_in_number(inner));
    note(editing, "prompt editing is not supported");
    notes
}

/// The parts of a text from each `open` to the next `close`, both included.
fn enclosed(text: &str, open: char, close: char) -> impl Iterator<Item = &str> {
    text.match_indices(open).filter_map(move |(start, _)| {
        let end = start + text[start..].find(close)?;
        Some(&text[start..end + close.len_utf8()])
    })
}

/// Whether a bracketed text ends in a colon and a number: `(cat:1.2)`.
fn ends_in_number(bracketed: &str) -> bool {
    let inner = &bracketed[1..bracketed.len() - 1];
    inner.rsplit_once(':').is_some_and(|(_, number)| number.trim().parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_programs_would_read_otherwise_is_named() {
        for (prompt, found) in [
            ("a (cat:1.2) on a mat", "\"(cat:1.2)\""),
            ("a ((cat)) on a mat", "\"((cat)\""),
            ("a cat <lora:style:0.8>", "\"<lora:style:0.8>\""),
            ("a [cat:dog:0.5]", "\"[cat:dog:0.5]\""),
            ("a [cat:0.5]", "\"[cat:0.5]\""),
        ] {
            let notes = foreign_syntax(prompt);
            assert!(notes.len() == 1 && notes[0].starts_with(found), "{notes:?}");
        }
        for prompt in ["a [V] cat", "<new> at 10:30", "a cat (sleeping)", "a) b( c:1", "(a: b) <b>", "ä(é:x)", ""] {
            assert_eq!(foreign_syntax(prompt), [""; 0], "{prompt}");
        }
    }
}
