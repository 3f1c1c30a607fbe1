//! TensorBoard's file format: protobuf messages (tensorflow/core/util/event.proto and framework/summary.proto), each
//! framed as a TFRecord with masked CRC-32C checksums (tensorflow/core/lib/io/record_writer.h).

/// What the first event of every file says.
const FILE_VERSION: &str = "brain.Event:2";

/// One `Event`: when, at which step, and what.
pub(crate) struct Event<'a> {
    pub(crate) wall_time: f64,
    pub(crate) step: u64,
    pub(crate) what: What<'a>,
}

/// The kinds of event that are used here.
pub(crate) enum What<'a> {
    FileVersion,
    /// From here on, what was read of this and later steps is void.
    SessionStart,
    Scalar {
        tag: &'a str,
        value: f32,
    },
}

impl Event<'_> {
    /// The event as a record, ready to be appended to a file.
    pub(crate) fn record(&self) -> Vec<u8> {
        let data = self.message();
        let length = (data.len() as u64).to_le_bytes();
        let checksums = [&length[..], &data].map(|bytes| masked_crc32c(bytes).to_le_bytes());
        [&length[..], &checksums[0], &data, &checksums[1]].concat()
    }

    fn message(&self) -> Vec<u8> {
        let mut event = Message::default();
        // A field with its default value is not written, unless it is one of several alternatives.
        if self.wall_time != 0.0 {
            event.fixed(1, self.wall_time.to_le_bytes());
        }
        if self.step != 0 {
            event.varint(2, self.step);
        }
        match self.what {
            What::FileVersion => event.bytes(3, FILE_VERSION.as_bytes()),
            What::Scalar { tag, value } => {
                let mut scalar = Message::default();
                scalar.bytes(1, tag.as_bytes());
                scalar.fixed(2, value.to_le_bytes());
                let mut summary = Message::default();
                summary.bytes(1, &scalar.0);
                event.bytes(5, &summary.0);
            }
            What::SessionStart => {
                let mut session_log = Message::default();
                session_log.varint(1, 1);
                event.bytes(7, &session_log.0);
            }
        }
        event.0
    }
}

/// A protobuf message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    /// A `double` of 8 bytes or a `float` of 4.
    fn fixed<const N: usize>(&mut self, field: u64, bytes: [u8; N]) {
        const { assert!(N == 4 || N == 8) };
        self.key(field, if N == 8 { 1 } else { 5 });
        self.0.extend(bytes);
    }

    /// A text, or a message within this one.
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

/// Rotated and shifted, so that a checksum within data that has checksums of its own is no special value.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial (RFC 3720, B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut rest = i as u32;
            let mut bit = 0;
            while bit < 8 {
                rest = if rest & 1 == 1 { rest >> 1 ^ 0x82f6_3b78 } else { rest >> 1 };
                bit += 1;
            }
            table[i] = rest;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4.
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&rising), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn events_are_byte_for_byte_what_tensorboard_writes() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/journal/golden.tfevents");
        let long = "long ".repeat(60);
        let scalar = |wall_time, step, tag, value| Event { wall_time, step, what: What::Scalar { tag, value } };
        let events = [
            Event { wall_time: 1_700_000_000.25, step: 0, what: What::FileVersion },
            Event { wall_time: 1_700_000_000.5, step: 61, what: What::SessionStart },
            scalar(1_700_000_001.0, 0, "loss", 0.1),
            scalar(1_700_000_002.125, 127, "stage/diffusion_loss", 0.0),
            scalar(1_700_000_003.0, 128, "stage/diffusion_loss", -1.5e-7),
            scalar(0.0, 300, "wörter/損失", f32::NAN),
            scalar(1_700_000_004.0, 1 << 40, "a", f32::INFINITY),
            scalar(1_700_000_004.0, i64::MAX as u64, &long, f32::MAX),
        ];
        let written: Vec<u8> = events.iter().flat_map(Event::record).collect();
        assert_eq!(written, std::fs::read(golden).unwrap());
    }
}
