//! What servers say of their sessions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::events::Event;
use super::status::Refused;
use super::{Core, ServerId};
use crate::core::types::Vni;
use crate::core::wire::{Notice, NoticeCode};

/// VNIs in which a server refused an announcement that are remembered at most; more are no news.
const REMEMBERED: usize = 4096;

/// What a server has said of its session.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// NOTICEs since the start.
    pub(super) total: u64,
    /// The last one of this session, for people.
    pub(super) last: Option<Arc<str>>,
    /// In which VNIs it refused an announcement in this session.
    refused: BTreeSet<Vni>,
}

impl Notices {
    /// The session is over.
    pub(super) fn end_session(&mut self) {
        self.last = None;
        self.refused.clear();
    }
}

impl Core {
    /// A server says something of its session.
    pub(super) fn noticed(&mut self, server: ServerId, notice: &Notice, now: Instant) {
        let Some(entry) = self.servers.get_mut(&server) else {
            return;
        };
        let Notice { code, vni, text } = notice;
        entry.notices.total += 1;
        entry.notices.last = Some(notice.to_string().into());
        if entry.notice_quiet.is_over(now) {
            let told = entry.notices.last.clone();
            self.notices.extend(told.map(|it| (server, it)));
        }
        let (what, is_news) = match *code {
            NoticeCode::REFUSED_SUBSCRIPTION if self.subscriptions.contains(vni) => {
                let (bit, vni) = (entry.bit, *vni);
                self.lose_table(bit, vni, false, now);
                let is_news = self.completeness.refuses(server, vni, now);
                self.obey();
                (Refused::Subscription, is_news)
            }
            NoticeCode::REFUSED_ANNOUNCEMENT => {
                let refused = &mut entry.notices.refused;
                let has_room = refused.len() < REMEMBERED;
                (Refused::Announcement, has_room && refused.insert(*vni))
            }
            _ => return,
        };
        if is_news {
            let why = Arc::from(&**text);
            self.view.push(&Event::Refused(server, *vni, what, why));
        }
    }

    /// What servers said since the last call, for the log: once a minute each at most.
    pub(crate) fn take_notices(&mut self) -> Vec<(ServerId, Arc<str>)> {
        std::mem::take(&mut self.notices)
    }
}
