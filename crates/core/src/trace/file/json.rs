//! The view for people: everything the binary format keeps, as JSON with one entry a line.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{FilledWith, SnapshotId, TraceEntry};
use super::{FormatError, MOST_MICROS, Trace, micros, no_page_twice, page_of, this_program};
use crate::units::{PageIndex, PageSize};

/// What the view says it is.
const FORMAT: &str = "uffd-rs trace";
const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct View {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    #[serde(default = "this_program")]
    created_by: String,
    snapshot: SnapshotView,
    entries: Vec<EntryView>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SnapshotView {
    length: u64,
    page_size: u64,
    fingerprint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EntryView {
    page: u64,
    offset: Option<u64>,
    #[serde(default)]
    write: bool,
    #[serde(default)]
    filled_with: FilledView,
    #[serde(default)]
    time_micros: u64,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum FilledView {
    #[default]
    Source,
    SourceZeros,
    Zeros,
    Present,
}

impl Trace {
    /// The view for people. [`from_json`](Self::from_json) reads it back as the same trace.
    pub fn to_json(&self) -> String {
        let snapshot = SnapshotView {
            length: self.snapshot.length,
            page_size: self.snapshot.page_size.bytes(),
            fingerprint: self.snapshot.fingerprint.to_string(),
        };
        let mut text = String::with_capacity(256 + 100 * self.entries.len());
        let _ = write!(
            text,
            "{{\n  \"format\": {},\n  \"version\": {VERSION},\n  \"createdBy\": {},\n  \
             \"snapshot\": {},\n  \"entries\": [",
            json(&FORMAT),
            json(&self.created_by),
            json(&snapshot)
        );
        for (number, entry) in self.entries.iter().enumerate() {
            let separator = if number == 0 { "" } else { "," };
            let _ = write!(text, "{separator}\n    {}", json(&self.view(*entry)));
        }
        text.push_str(if self.entries.is_empty() { "]\n}\n" } else { "\n  ]\n}\n" });
        text
    }

    fn view(&self, entry: TraceEntry) -> EntryView {
        EntryView {
            page: entry.page().0,
            offset: Some(entry.page().offset(self.snapshot.page_size)),
            write: entry.is_write(),
            filled_with: entry.filled_with().into(),
            time_micros: micros(entry),
        }
    }

    /// Reads the view for people. An entry needs its page and nothing else: it is then a read at
    /// time 0 that was filled from the snapshot.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        // A view of a later version may differ in anything but this.
        let version = |text| -> serde_json::Result<Option<u64>> {
            #[derive(Deserialize)]
            struct Start {
                format: Value,
                version: Value,
            }
            let start: Start = serde_json::from_str(text)?;
            Ok(start.version.as_u64().filter(|_| start.format == FORMAT))
        };
        let malformed = |error: serde_json::Error| FormatError::Json(error.to_string());
        match version(text).map_err(malformed)? {
            Some(1) => {}
            Some(found) => {
                return Err(FormatError::Version {
                    found: u32::try_from(found).unwrap_or(u32::MAX),
                });
            }
            None => {
                let expected = format!("\"format\" should be {FORMAT:?} and \"version\" a number");
                return Err(FormatError::Json(expected));
            }
        }
        let view: View = serde_json::from_str(text).map_err(malformed)?;
        let snapshot = view.snapshot.try_into()?;
        let mut entries = Vec::with_capacity(view.entries.len());
        for (number, entry) in view.entries.into_iter().enumerate() {
            let page = page_of(&snapshot, number, entry.page)?;
            entries.push(entry.check(number, page, snapshot.page_size)?);
        }
        no_page_twice(&entries)?;
        Ok(Self { snapshot, created_by: view.created_by, entries })
    }
}

impl TryFrom<SnapshotView> for SnapshotId {
    type Error = FormatError;

    fn try_from(view: SnapshotView) -> Result<Self, FormatError> {
        let page_size = PageSize::from_bytes(view.page_size).ok_or_else(|| {
            let found = view.page_size;
            FormatError::Json(format!("pageSize is {found}, and should be 4096 or 2097152"))
        })?;
        let fingerprint =
            view.fingerprint.parse().map_err(|error| FormatError::Json(format!("{error}")))?;
        Ok(Self { length: view.length, page_size, fingerprint })
    }
}

impl EntryView {
    fn check(
        self,
        number: usize,
        page: PageIndex,
        page_size: PageSize,
    ) -> Result<TraceEntry, FormatError> {
        let offset = page.offset(page_size);
        if let Some(found) = self.offset.filter(|found| *found != offset) {
            return Err(FormatError::Json(format!(
                "entry {number}: offset is {found}, and that of page {page} is {offset}: \
                 correct one of them, or leave the offset out"
            )));
        }
        if self.time_micros > MOST_MICROS {
            let found = self.time_micros;
            return Err(FormatError::Json(format!(
                "entry {number}: timeMicros is {found}, and at most {MOST_MICROS} is possible"
            )));
        }
        let time = Duration::from_micros(self.time_micros);
        Ok(TraceEntry::new(page, self.write, self.filled_with.into(), time))
    }
}

impl From<FilledWith> for FilledView {
    fn from(filled: FilledWith) -> Self {
        match filled {
            FilledWith::Source => Self::Source,
            FilledWith::SourceZeros => Self::SourceZeros,
            FilledWith::Zeros => Self::Zeros,
            FilledWith::Present => Self::Present,
        }
    }
}

impl From<FilledView> for FilledWith {
    fn from(filled: FilledView) -> Self {
        match filled {
            FilledView::Source => Self::Source,
            FilledView::SourceZeros => Self::SourceZeros,
            FilledView::Zeros => Self::Zeros,
            FilledView::Present => Self::Present,
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}
