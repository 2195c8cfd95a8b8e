//! What a session sent and received, in numbers.

use crate::core::wire::MessageType;

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// HELLO.
    pub hello: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// SUBSCRIBE.
    pub subscribe: u64,
    /// UNSUBSCRIBE.
    pub unsubscribe: u64,
    /// UPDATE.
    pub update: u64,
    /// END_OF_RIB.
    pub end_of_rib: u64,
    /// NOTICE.
    pub notice: u64,
}

impl MessageCounts {
    /// One more message of a type.
    pub(crate) const fn count(&mut self, kind: MessageType) {
        let count = match kind {
            MessageType::Hello => &mut self.hello,
            MessageType::Keepalive => &mut self.keepalive,
            MessageType::Subscribe => &mut self.subscribe,
            MessageType::Unsubscribe => &mut self.unsubscribe,
            MessageType::Update => &mut self.update,
            MessageType::EndOfRib => &mut self.end_of_rib,
            MessageType::Notice => &mut self.notice,
        };
        *count += 1;
    }
}
