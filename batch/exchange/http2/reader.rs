//! One direction's frames, fed at any split and with gaps.

use std::borrow::Cow;

use super::frame::{self, Frame, Kind, begins_with_frame, flag};

#[derive(Debug)]
enum State {
    /// So many bytes of the preface were seen.
    Preface(usize),
    /// A frame's head is expected; what there is of it.
    Head(Vec<u8>),
    /// In a DATA frame.
    Data(Data),
    /// A frame whose payload is needed as a whole.
    Collect(Frame, Vec<u8>),
    /// A frame, or what is left of one, that is passed over; behind it, whether it ends its stream.
    Skip { left: u32, ends: Option<u32> },
    /// The place is lost: a frame is looked for at the start of each record.
    Seek,
}

#[derive(Debug, Clone, Copy)]
struct Data {
    stream: u32,
    /// Bytes of the payload to come, with the padding.
    left: u32,
    /// Length of the padding, once it is known.
    padding: Option<u32>,
    end: bool,
}

/// What was met.
#[derive(Debug)]
pub(super) enum Step<'b> {
    NeedMore,
    /// The place was found again.
    Found,
    /// Bytes of a stream's body; whether they end it.
    Body {
        stream: u32,
        data: &'b [u8],
        end: bool,
    },
    /// A whole frame of a kind that matters.
    Frame {
        frame: Frame,
        payload: Cow<'b, [u8]>,
    },
    /// A header block is larger than any may be, and is passed over.
    TooLarge(Frame),
    /// Not a frame.
    Malformed,
}

/// What a gap has hit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing of use.
    Harmless,
    /// So many bytes of a stream's body; or, if its padding is not known, an unknown number.
    Body { stream: u32, len: Option<u64> },
    /// A frame whose payload is needed as a whole.
    Frame(Frame),
    /// Frames that nobody knows of.
    Place,
}

#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// The next frame is a server's first, which is its settings: what begins otherwise is not HTTP/2.
    first: bool,
    /// Bytes of a header block at most.
    limit: usize,
}

impl Reader {
    pub(super) fn preface(limit: usize) -> Self {
        Self { state: State::Preface(0), first: false, limit }
    }

    pub(super) fn frames(limit: usize) -> Self {
        Self { state: State::Head(Vec::new()), first: true, limit }
    }

    pub(super) fn lost(limit: usize) -> Self {
        Self { state: State::Seek, first: false, limit }
    }

    /// The rest of the record leads nowhere.
    pub(super) fn lose(&mut self) {
        self.state = State::Seek;
    }

    pub(super) fn kept_bytes(&self) -> usize {
        match &self.state {
            State::Head(bytes) | State::Collect(_, bytes) => bytes.capacity(),
            _ => 0,
        }
    }

    /// The stream whose body is under way, and how many bytes of it are left in the frame.
    pub(super) fn body(&self) -> Option<(u32, u64)> {
        match self.state {
            State::Data(Data { stream, left, padding: Some(padding), .. }) => {
                Some((stream, u64::from(left.saturating_sub(padding).saturating_sub(1))))
            }
            _ => None,
        }
    }

    /// Takes one step; `bytes` moves on over what was used.
    pub(super) fn step<'b>(&mut self, bytes: &mut &'b [u8]) -> Step<'b> {
        loop {
            match &mut self.state {
                State::Preface(seen) => {
                    let rest = &frame::PREFACE[*seen..];
                    let len = rest.len().min(bytes.len());
                    let (start, behind) = bytes.split_at(len);
                    if start != &rest[..len] {
                        return Step::Malformed;
                    }
                    *bytes = behind;
                    *seen += len;
                    if *seen < frame::PREFACE.len() {
                        return Step::NeedMore;
                    }
                    self.state = State::Head(Vec::new());
                }
                State::Head(head) => {
                    let Some(frame) = take_head(head, bytes) else { return Step::NeedMore };
                    if std::mem::take(&mut self.first) && frame.kind != Kind::Settings {
                        return Step::Malformed;
                    }
                    if let Some(step) = self.begin(frame) {
                        return step;
                    }
                }
                State::Data(data) => {
                    let data = *data;
                    return self.data(data, bytes);
                }
                State::Collect(frame, collected) => {
                    let (frame, len) = (*frame, frame.len as usize);
                    let (part, rest) = bytes.split_at(bytes.len().min(len - collected.len()));
                    if collected.is_empty() && part.len() == len {
                        *bytes = rest;
                        self.state = State::Head(Vec::new());
                        return Step::Frame { frame, payload: Cow::Borrowed(part) };
                    }
                    collected.extend_from_slice(part);
                    *bytes = rest;
                    if collected.len() < len {
                        return Step::NeedMore;
                    }
                    let payload = Cow::Owned(std::mem::take(collected));
                    self.state = State::Head(Vec::new());
                    return Step::Frame { frame, payload };
                }
                State::Skip { left, ends } => {
                    let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *bytes = &bytes[len..];
                    *left -= u32::try_from(len).unwrap_or(*left);
                    if *left > 0 {
                        return Step::NeedMore;
                    }
                    let ends = *ends;
                    self.state = State::Head(Vec::new());
                    if let Some(stream) = ends {
                        return Step::Body { stream, data: &[], end: true };
                    }
                }
                State::Seek => {
                    if bytes.is_empty() || !begins_with_frame(bytes) {
                        *bytes = &[];
                        return Step::NeedMore;
                    }
                    self.state = State::Head(Vec::new());
                    return Step::Found;
                }
            }
        }
    }

    /// What follows a frame's head.
    fn begin(&mut self, frame: Frame) -> Option<Step<'static>> {
        if !frame.is_valid() {
            return Some(Step::Malformed);
        }
        let ends = (frame.kind == Kind::Headers && frame.has(flag::END_STREAM)).then_some(frame.stream);
        self.state = match frame.kind {
            Kind::Data => State::Data(Data {
                stream: frame.stream,
                left: frame.len,
                padding: if frame.has(flag::PADDED) { None } else { Some(0) },
                end: frame.has(flag::END_STREAM),
            }),
            Kind::Headers | Kind::PushPromise | Kind::Continuation if frame.len as usize > self.limit => {
                self.state = State::Skip { left: frame.len, ends };
                return Some(Step::TooLarge(frame));
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation | Kind::RstStream => {
                State::Collect(frame, Vec::new())
            }
            Kind::Goaway if frame.len as usize <= self.limit => State::Collect(frame, Vec::new()),
            _ => State::Skip { left: frame.len, ends: None },
        };
        None
    }

    fn data<'b>(&mut self, mut data: Data, bytes: &mut &'b [u8]) -> Step<'b> {
        let padding = match data.padding {
            Some(padding) => padding,
            None => {
                let Some((first, rest)) = bytes.split_first() else { return Step::NeedMore };
                *bytes = rest;
                data.left -= 1;
                let padding = u32::from(*first);
                if padding > data.left {
                    return Step::Malformed;
                }
                data.padding = Some(padding);
                padding
            }
        };
        let mut take = |most: u32| {
            let len = usize::try_from(most).map_or(bytes.len(), |most| most.min(bytes.len()));
            let (part, rest) = bytes.split_at(len);
            *bytes = rest;
            (part, u32::try_from(len).unwrap_or(most))
        };
        let (body, len) = take(data.left.saturating_sub(padding));
        data.left -= len;
        if data.left <= padding {
            data.left -= take(data.left).1;
        }
        let over = data.left == 0;
        self.state = if over { State::Head(Vec::new()) } else { State::Data(data) };
        if body.is_empty() && !over {
            return Step::NeedMore;
        }
        Step::Body { stream: data.stream, data: body, end: data.end && over }
    }

    /// Passes over missing bytes.
    pub(super) fn skip(&mut self, len: u64) -> Gap {
        let fits = |left: u32| u32::try_from(len).ok().and_then(|len| left.checked_sub(len));
        let gap = match &self.state {
            State::Data(data) => fits(data.left).map(|left| skip_data(*data, left, len)),
            State::Collect(frame, collected) => {
                let have = u32::try_from(collected.len()).unwrap_or(u32::MAX);
                fits(frame.len.saturating_sub(have)).map(|left| {
                    let ends = (frame.kind == Kind::Headers && frame.has(flag::END_STREAM)).then_some(frame.stream);
                    (State::Skip { left, ends }, Gap::Frame(*frame))
                })
            }
            State::Skip { left, ends } => fits(*left).map(|left| (State::Skip { left, ends: *ends }, Gap::Harmless)),
            State::Preface(_) | State::Head(_) | State::Seek => None,
        };
        let (state, gap) = gap.unwrap_or((State::Seek, Gap::Place));
        self.state = state;
        gap
    }
}

/// Passes over `len` bytes of a DATA frame, of which `left` are to come then.
fn skip_data(data: Data, left: u32, len: u64) -> (State, Gap) {
    let Data { stream, padding, end, .. } = data;
    let rest = State::Skip { left, ends: end.then_some(stream) };
    match padding {
        // Where the body ends in the frame was told in its first byte.
        None => (rest, Gap::Body { stream, len: None }),
        Some(padding) => {
            let body = u64::from(data.left.saturating_sub(padding)).min(len);
            let state = if left > padding { State::Data(Data { left, ..data }) } else { rest };
            (state, Gap::Body { stream, len: Some(body) })
        }
    }
}

/// Collects a frame's head; one that lies in the bytes as a whole is not copied.
fn take_head(have: &mut Vec<u8>, bytes: &mut &[u8]) -> Option<Frame> {
    if have.is_empty()
        && let Some((head, rest)) = bytes.split_first_chunk::<{ frame::HEAD }>()
    {
        *bytes = rest;
        return Some(Frame::of(*head));
    }
    let (part, rest) = bytes.split_at(bytes.len().min(frame::HEAD - have.len()));
    have.extend_from_slice(part);
    *bytes = rest;
    let head = <[u8; frame::HEAD]>::try_from(have.as_slice()).ok()?;
    have.clear();
    Some(Frame::of(head))
}
