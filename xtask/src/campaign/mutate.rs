//! Damage to bytes, JSON and safetensors.

use serde_json::{Map, Number, Value, json};

use super::chance::Chance;

/// Damages a file as its kind may be damaged.
pub(super) fn damage(name: &str, bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    let structured = chance.below(4) > 0;
    let json = structured.then(|| serde_json::from_slice::<Value>(bytes).ok()).flatten();
    if let Some(mut value) = json {
        for _ in 0..=chance.below(2) {
            damage_json(&mut value, chance);
        }
        return value.to_string().into_bytes();
    }
    if structured
        && name.ends_with(".safetensors")
        && let Some(damaged) = damage_safetensors(bytes, chance)
    {
        return damaged;
    }
    damage_bytes(bytes.to_vec(), chance)
}

/// Numbers, texts and other values that somebody may write.
fn value(chance: &mut Chance) -> Value {
    let numbers = [
        json!(0),
        json!(-1),
        json!(1),
        json!(2),
        json!(3),
        json!(7),
        json!(255),
        json!(65_537),
        json!(i32::MAX),
        json!(u32::MAX),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(-0.0),
        json!(1e-320),
        json!(1e308),
        json!(-1e308),
    ];
    match chance.below(12) {
        0 => Value::Null,
        1 => Value::Bool(chance.below(2) == 0),
        2 => json!(""),
        3 => json!("\u{0}\u{1b}[2J\u{202e}\n"),
        4 => Value::from("x".repeat(1 << chance.below(17))),
        5 => json!([]),
        6 => json!({}),
        7 => Value::Array(vec![chance.pick(&numbers).clone(); 1 << chance.below(12)]),
        _ => chance.pick(&numbers).clone(),
    }
}

/// Changes one value anywhere.
fn damage_json(root: &mut Value, chance: &mut Chance) {
    let mut here = root;
    loop {
        // Stops at every depth now and then, so that whole objects change too.
        let inside = match here {
            Value::Object(map) => map.len(),
            Value::Array(list) => list.len(),
            _ => 0,
        };
        if inside == 0 || chance.below(6) == 0 {
            break;
        }
        let place = chance.below(inside);
        here = match here {
            Value::Object(map) => match map.values_mut().nth(place) {
                Some(value) => value,
                None => return,
            },
            Value::Array(list) => &mut list[place],
            _ => return,
        };
    }
    match (here, chance.below(6)) {
        (Value::Object(map), 0..3) => damage_keys(map, chance),
        (Value::Array(list), 0..3) if !list.is_empty() => match chance.below(3) {
            0 => drop(list.remove(chance.below(list.len()))),
            1 => list.push(list[chance.below(list.len())].clone()),
            _ => list.reverse(),
        },
        // A near miss more often than nonsense.
        (Value::Number(number), 0..3) => *number = near(number, chance),
        (Value::String(text), 0..2) => *text = text.chars().rev().collect(),
        (other, _) => *other = value(chance),
    }
}

fn damage_keys(map: &mut Map<String, Value>, chance: &mut Chance) {
    let Some(key) = map.keys().nth(chance.below(map.len())).cloned() else { return };
    let before = map.remove(&key);
    if chance.below(2) == 0 {
        map.insert(format!("{key}_"), before.unwrap_or_default());
    }
}

fn near(number: &Number, chance: &mut Chance) -> Number {
    let changed = match (number.as_i64(), number.as_f64()) {
        (Some(number), _) => Some(Number::from(match chance.below(5) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => number.wrapping_mul(2),
            3 => number.wrapping_neg(),
            _ => number.wrapping_mul(1 << 20),
        })),
        (None, Some(number)) => Number::from_f64(number * [-1.0, 0.0, 10.0, 1e300][chance.below(4)]),
        _ => None,
    };
    changed.unwrap_or_else(|| Number::from(0))
}

/// Damages the header, or the number of its bytes, and leaves the rest.
fn damage_safetensors(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let end = 8_usize.checked_add(length)?;
    let mut header: Value = serde_json::from_slice(bytes.get(8..end)?).ok()?;
    let body = bytes.get(end..)?;
    let mut damaged = Vec::new();
    match chance.below(5) {
        0 => {
            let lengths = [0, 1, 7, u64::MAX, 1 << 63, length as u64 + 1, length as u64 - 1, 1 << 40];
            damaged.extend(chance.pick(&lengths).to_le_bytes());
            damaged.extend(&bytes[8..]);
        }
        // Numbers that are none, which no header tells.
        1 => {
            damaged.extend(&bytes[..end]);
            damaged.extend(body);
            for _ in 0..=chance.below(64) {
                let place = end + chance.below(body.len().max(1)) / 4 * 4;
                if let Some(number) = damaged.get_mut(place..place + 4) {
                    number.copy_from_slice(&chance.pick(&[f32::NAN, f32::INFINITY, f32::MAX, -0.0]).to_le_bytes());
                }
            }
        }
        _ => {
            damage_json(&mut header, chance);
            let header = header.to_string().into_bytes();
            damaged.extend((header.len() as u64).to_le_bytes());
            damaged.extend(header);
            damaged.extend(body);
        }
    }
    Some(damaged)
}

fn damage_bytes(mut bytes: Vec<u8>, chance: &mut Chance) -> Vec<u8> {
    for _ in 0..=chance.below(3) {
        let length = bytes.len();
        if length == 0 {
            return b"x".to_vec();
        }
        let place = chance.below(length);
        // What tells lengths and kinds stands at the beginning.
        let place = if chance.below(3) == 0 { place % 64.min(length) } else { place };
        let some = chance.below(64.min(length - place)) + 1;
        match chance.below(7) {
            0 => bytes[place] ^= 1 << chance.below(8),
            1 => bytes[place..place + some].fill([0, 0xFF, b'9', b'"'][chance.below(4)]),
            2 => bytes.truncate(place),
            3 => drop(bytes.drain(place..place + some)),
            4 => {
                let part = bytes[place..place + some].to_vec();
                let at = chance.below(length);
                bytes.splice(at..at, part);
            }
            5 => bytes[place..place + some].iter_mut().for_each(|byte| *byte = chance.next() as u8),
            _ => bytes.clear(),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_follows_from_the_seed_and_changes_something() {
        let text = br#"{"layers": [1, 2], "act": "silu", "eps": 1e-5}"#;
        let mut changed = 0;
        for seed in 0..300 {
            let [first, second] = [(); 2].map(|()| damage("config.json", text, &mut Chance::new(seed)));
            assert_eq!(first, second);
            changed += usize::from(first != text);
        }
        assert!(changed > 250, "{changed}");
    }

    #[test]
    fn most_damaged_headers_are_still_headers() {
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend([0; 8]);
        let whole = (0..200).filter(|seed| {
            let damaged = damage("a.safetensors", &file, &mut Chance::new(*seed));
            let length = damaged.get(..8).map(|length| u64::from_le_bytes(length.try_into().unwrap()));
            let end = length.and_then(|length| usize::try_from(length).ok()?.checked_add(8));
            end.and_then(|end| damaged.get(8..end)).is_some_and(|json| serde_json::from_slice::<Value>(json).is_ok())
        });
        assert!(whole.count() > 80);
        assert!(!damage("a.bin", b"", &mut Chance::new(1)).is_empty());
    }
}
