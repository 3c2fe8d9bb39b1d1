use napi::bindgen_prelude::BigUint64Array;
use napi_derive::napi;
use uffd_core::guardian;

use crate::end_report::EndReport;
use crate::error::ErrorInfo;
use crate::export::PageExport;
use crate::guest::NativeGuest;
use crate::notice::Notice;
use crate::outbox::{Answer, News};
use crate::prefault_report::PrefaultReport;
use crate::release_progress::ReleaseProgress;
use crate::stats::Stats;
use crate::trace_words::to_words;

/// Something the native part has to tell.
#[napi(discriminant = "type", discriminant_case = "camelCase", object_from_js = false)]
pub enum NativeEvent {
    /// The socket accepts.
    Listening,
    /// It never will.
    ListenFailed { error: ErrorInfo },
    /// The socket is gone.
    Closed,
    /// The guardian is ready for its guests, where there is to be one, or why it is not.
    GuardianAsked { error: Option<ErrorInfo> },
    /// All guests were handed over: somebody has them, as far as can be seen, or why that is wrong.
    HandedOver { error: Option<ErrorInfo> },
    /// A guest is being served from now on; `recovered`, it was left by another process.
    Arrived { guest: NativeGuest, recovered: bool },
    /// The state directory is on a disk, to which every fault will write.
    StateDirOnDisk,
    /// Another server has the state directory, and this one is ready to take over so many guests.
    Waiting { guests: u32 },
    /// A guest that was left is not taken over; `swept`, it has ended, and its ledger is gone.
    NotRecovered { path: String, error: ErrorInfo, swept: bool },
    /// The guardian is there, and listens.
    GuardianMet { pid: i32 },
    /// The guardian was lost, does not answer, or cannot be started again.
    GuardianTroubled { error: ErrorInfo },
    /// The guardian would serve the guest with this id at once.
    Guarded { handoff_id: String },
    /// It could not, and why.
    Unguarded { handoff_id: String, error: ErrorInfo },
    /// Something is wrong with the service manager.
    ServiceManagerTroubled { error: ErrorInfo },
    /// A guest was refused, and so many before it that are not reported.
    Refused { error: ErrorInfo, unseen: u32 },
    /// A connection could not be accepted; with `forGood`, none will be.
    Troubled { error: ErrorInfo, for_good: bool },
    /// Statistics.
    Stats { guest: u32, stats: Stats },
    /// First touches, two words each. Ask for more with `wantTrace` unless this is the `last`.
    Trace { guest: u32, words: BigUint64Array, last: bool },
    /// A notice.
    Notice { guest: u32, notice: Notice },
    /// How far a release has come.
    Releasing { guest: u32, progress: ReleaseProgress },
    /// A prefault was carried out.
    Prefaulted { request: u32, report: PrefaultReport },
    /// The answer to `export`.
    Exported { request: u32, export: PageExport },
    /// The answer to `stats`.
    Counted { request: u32, stats: Stats },
    /// The answer to `trace`, two words an entry.
    Traced { request: u32, words: BigUint64Array },
    /// The answer to `settle`.
    Settled { request: u32 },
    /// The answer to `release`: nothing, or why not.
    Released { request: u32, error: Option<ErrorInfo> },
    /// A command came too late.
    TooLate { request: u32 },
    /// A guest has ended. The last event about it.
    Ended { guest: u32, end: EndReport },
}

impl NativeEvent {
    /// What JavaScript is told, unless it was told already.
    pub(crate) fn of(news: News) -> Option<Self> {
        Some(match news {
            News::Listening => Self::Listening,
            News::ListenFailed(error) => Self::ListenFailed { error },
            News::Closed => Self::Closed,
            News::GuardianAsked(error) => Self::GuardianAsked { error },
            News::HandedOver { ownerless } => Self::HandedOver {
                error: (!ownerless.is_empty()).then(|| ErrorInfo::ownerless(&ownerless)),
            },
            News::Arrived { about, session, snapshot, recovered } => {
                Self::Arrived { guest: NativeGuest::new(about, &session, snapshot), recovered }
            }
            News::StateDirOnDisk => Self::StateDirOnDisk,
            News::Waiting { guests } => Self::Waiting { guests },
            News::NotRecovered(other) => Self::NotRecovered {
                path: other.path.to_string_lossy().into_owned(),
                error: ErrorInfo::from(&other),
                swept: other.why.is_ended(),
            },
            News::Guardian(guardian::News::Met { pid }) => Self::GuardianMet { pid },
            News::Guardian(guardian::News::Troubled(error)) => {
                Self::GuardianTroubled { error: ErrorInfo::from(&error) }
            }
            News::Guardian(guardian::News::Guarded { id }) => Self::Guarded { handoff_id: id },
            News::Guardian(guardian::News::Unguarded { id, why }) => {
                Self::Unguarded { handoff_id: id, error: ErrorInfo::unguarded(why) }
            }
            News::ServiceManager(trouble) => {
                Self::ServiceManagerTroubled { error: ErrorInfo::from(&trouble) }
            }
            News::Refused { error, unseen } => Self::Refused { error, unseen },
            News::Troubled { error, for_good } => Self::Troubled { error, for_good },
            News::Stats(about) => {
                Self::Stats { guest: about.id, stats: Stats::from(&*about.take_stats()?) }
            }
            News::Trace(about) => {
                let words = to_words(&about.take_trace());
                Self::Trace { guest: about.id, words, last: false }
            }
            News::LastTrace(about, entries) => {
                Self::Trace { guest: about.id, words: to_words(&entries), last: true }
            }
            News::Notice(about, notice) => {
                let notice = Notice::new(&notice, about.took_notice());
                Self::Notice { guest: about.id, notice }
            }
            News::Releasing(about) => {
                Self::Releasing { guest: about.id, progress: about.take_releasing()?.into() }
            }
            News::Answer { request, answer } => Self::answer(request, answer),
            News::Ended(about, end) => Self::Ended { guest: about.id, end: *end },
        })
    }

    fn answer(request: u32, answer: Answer) -> Self {
        match answer {
            Answer::Prefault(report) => Self::Prefaulted { request, report: report.into() },
            Answer::Export(export) => Self::Exported { request, export: (*export).into() },
            Answer::Stats(stats) => Self::Counted { request, stats: Stats::from(&*stats) },
            Answer::Trace(entries) => Self::Traced { request, words: to_words(&entries) },
            Answer::Settled => Self::Settled { request },
            Answer::Released(refused) => {
                Self::Released { request, error: refused.as_ref().map(ErrorInfo::from) }
            }
            Answer::Ended => Self::TooLate { request },
        }
    }
}
