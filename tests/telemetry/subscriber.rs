//! A subscriber that keeps every span and event of the library.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

/// The spans and events of all caches of these tests.
pub static TRACED: LazyLock<Traced> = LazyLock::new(|| {
    let traced = Traced::default();
    tracing::subscriber::set_global_default(traced.clone()).unwrap();
    traced
});

#[derive(Clone, Default)]
pub struct Traced(Arc<State>);

#[derive(Default)]
struct State {
    /// In the order of their ids, from 1 on.
    spans: Mutex<Vec<Span>>,
    events: Mutex<Vec<LoggedEvent>>,
}

#[derive(Clone, Debug)]
pub struct Span {
    pub metadata: &'static Metadata<'static>,
    pub parent: Option<&'static str>,
    pub fields: String,
    /// How often the span was entered and left.
    pub entered: u64,
    pub left: u64,
}

#[derive(Clone, Debug)]
pub struct LoggedEvent {
    pub level: Level,
    pub fields: String,
    /// The name of the span in which the event happened.
    pub within: Option<&'static str>,
}

thread_local! {
    static CURRENT: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

impl Traced {
    /// The spans of one cache.
    pub fn spans(&self, cache: &str) -> Vec<Span> {
        let of_cache = format!("cache={cache:?} ");
        let spans = self.0.spans.lock().unwrap();
        let spans = spans.iter().filter(|span| span.fields.contains(&of_cache));
        spans.cloned().collect()
    }

    /// The events of one cache.
    pub fn events(&self, cache: &str) -> Vec<LoggedEvent> {
        self.events_with(&format!("cache={cache:?} "))
    }

    /// The events with this text in them.
    pub fn events_with(&self, text: &str) -> Vec<LoggedEvent> {
        let events = self.0.events.lock().unwrap();
        let events = events.iter().filter(|event| event.fields.contains(text));
        events.cloned().collect()
    }

    /// All spans and events, as text.
    pub fn text(&self) -> String {
        let (spans, events) = (self.0.spans.lock().unwrap(), self.0.events.lock().unwrap());
        format!("{spans:?} {events:?}")
    }

    fn metadata(&self, id: &Id) -> &'static Metadata<'static> {
        self.0.spans.lock().unwrap()[id.into_u64() as usize - 1].metadata
    }

    fn current(&self) -> Option<Id> {
        CURRENT.with_borrow(|ids| ids.last().cloned())
    }
}

/// Fields as text, each as `name=value `.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Traced {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "everfresh" || metadata.target() == "a test"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut text = Text(String::new());
        attributes.record(&mut text);
        let parent = match attributes.is_contextual() {
            true => self.current(),
            false => attributes.parent().cloned(),
        };
        let span = Span {
            metadata: attributes.metadata(),
            parent: parent.map(|id| self.metadata(&id).name()),
            fields: text.0,
            entered: 0,
            left: 0,
        };
        let mut spans = self.0.spans.lock().unwrap();
        spans.push(span);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let logged = LoggedEvent {
            level: *event.metadata().level(),
            fields: text.0,
            within: self.current().map(|id| self.metadata(&id).name()),
        };
        self.0.events.lock().unwrap().push(logged);
    }

    fn enter(&self, id: &Id) {
        self.0.spans.lock().unwrap()[id.into_u64() as usize - 1].entered += 1;
        CURRENT.with_borrow_mut(|ids| ids.push(id.clone()));
    }

    fn exit(&self, id: &Id) {
        self.0.spans.lock().unwrap()[id.into_u64() as usize - 1].left += 1;
        CURRENT.with_borrow_mut(|ids| assert_eq!(ids.pop().as_ref(), Some(id)));
    }

    fn current_span(&self) -> Current {
        match self.current() {
            Some(id) => Current::new(id.clone(), self.metadata(&id)),
            None => Current::none(),
        }
    }
}
