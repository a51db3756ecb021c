//! Writing the little protobuf that the driver sends. The tables of the project are not
//! used: what is tested does not make its own test.

/// A message that is being written.
#[derive(Debug, Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A field of bytes.
    #[must_use]
    pub fn bytes(mut self, number: u64, bytes: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A field of text.
    #[must_use]
    pub fn text(self, number: u64, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    /// A field that is a message.
    #[must_use]
    pub fn message(self, number: u64, message: Self) -> Self {
        self.bytes(number, &message.0)
    }

    /// A number.
    #[must_use]
    pub fn number(mut self, number: u64, value: u64) -> Self {
        self.varint(number << 3);
        self.varint(value);
        self
    }

    /// An entry of a map from text to something.
    #[must_use]
    pub fn entry(self, number: u64, key: &str, value: Self) -> Self {
        self.message(number, Self::default().text(1, key).message(2, value))
    }

    /// An entry of a map from text to text.
    #[must_use]
    pub fn text_entry(self, number: u64, key: &str, value: &str) -> Self {
        self.message(number, Self::default().text(1, key).text(2, value))
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// `k8s\0` and `runtime.Unknown` around an object.
pub fn envelope(api_version: &str, kind: &str, object: Message) -> Vec<u8> {
    let type_meta = Message::default().text(1, api_version).text(2, kind);
    let unknown = Message::default()
        .message(1, type_meta)
        .message(2, object)
        .text(3, "")
        .text(4, "");
    [b"k8s\0".as_slice(), &unknown.0].concat()
}
