//! What is drawn.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row as TableRow, Table, TableState},
};

use super::{Row, State, WINDOW};
use crate::show::visible_line;

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let detail = Constraint::Length(if state.opened { 12 } else { 0 });
    let [head, list, detail, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(3), detail, Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(vec![title(state), numbers(state)]), head);
    table(frame, state, list);
    if state.opened {
        frame.render_widget(opened(state), detail);
    }
    frame.render_widget(Paragraph::new(keys(state)), foot);
}

fn title(state: &State) -> Line<'static> {
    let faint = Style::new().add_modifier(Modifier::DIM);
    let (word, color) = match (&state.trouble, &state.paused) {
        (Some(why), _) => (format!("no connection: {}", visible_line(why)), Color::Red),
        (None, Some(held)) => (format!("paused, {} wait", held.len()), Color::Yellow),
        (None, None) => ("live".to_owned(), Color::Green),
    };
    Line::from(vec![
        Span::styled("ringtap ", Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(format!("{}  ", visible_line(&state.host)), faint),
        Span::styled(word, Style::new().fg(color)),
        Span::styled(format!("  {} transactions", state.total), faint),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn numbers(state: &State) -> Line<'static> {
    let n = state.recent.len();
    let seconds = WINDOW.as_secs_f64();
    let failed = state.recent.iter().filter(|(.., failed)| *failed).count();
    let mut times: Vec<f64> = state.recent.iter().map(|(_, ms, _)| *ms).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(n * share / 100).map_or_else(|| "-".to_owned(), |ms| time(*ms));
    let errors = if failed > 0 { Style::new().fg(Color::Red) } else { Style::new() };
    Line::from(vec![
        Span::raw(format!("{:.1}/s   ", n as f64 / seconds)),
        Span::styled(format!("errors {:.1}/s   ", failed as f64 / seconds), errors),
        Span::raw(format!("median {}   95 % {}", at(50), at(95))),
    ])
}

fn table(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let rows: Vec<&Row> = state.listed().collect();
    let chosen = state.chosen.and_then(|seq| rows.iter().position(|row| row.seq == seq));
    let height = usize::from(area.height);
    // Only what can be seen is made.
    let first = chosen.map_or(0, |at| at.saturating_sub(height / 2));
    let cells = rows.iter().skip(first).take(height).map(|row| cells(row));
    let widths = [
        Constraint::Length(12),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Fill(2),
        Constraint::Fill(4),
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let head = TableRow::new(["TIME", "METHOD", "STATUS", "HOST", "PATH", "PROCESS", "SIZE", "DURATION"])
        .style(Style::new().add_modifier(Modifier::DIM));
    let table = Table::new(cells, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::new().borders(Borders::TOP));
    let mut place = TableState::new().with_selected(chosen.map(|at| at - first));
    frame.render_stateful_widget(table, area, &mut place);
}

fn cells(row: &Row) -> TableRow<'static> {
    let color = match row.status {
        _ if row.damage > 0 => Color::Red,
        200..300 => Color::Green,
        300..400 => Color::Magenta,
        400..500 => Color::Yellow,
        500.. => Color::Red,
        _ => Color::Reset,
    };
    let lasts = row.phase == "started";
    let status = if lasts { "…".to_owned() } else { row.status.to_string() };
    let process = row.process.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or("?");
    let who = row.pod.as_deref().or(row.container.as_deref()).unwrap_or(process);
    TableRow::new([
        Line::raw(visible_line(row.time.get(11..23).unwrap_or_default())),
        Line::raw(visible_line(&row.method)),
        Line::styled(status, Style::new().fg(color)),
        Line::raw(visible_line(&row.host)),
        Line::raw(visible_line(&row.path)),
        Line::raw(visible_line(who)),
        Line::raw(size(row.response_size)).right_aligned(),
        Line::raw(if lasts { String::new() } else { time(row.duration) }).right_aligned(),
    ])
}

fn opened(state: &State) -> Paragraph<'static> {
    let row = state.chosen.and_then(|seq| state.rows.iter().find(|row| row.seq == seq));
    let Some(row) = row else { return Paragraph::new("") };
    let tls = row.tls.as_deref().map_or_else(|| "the socket".to_owned(), |tls| format!("{tls}, in clear text"));
    let facts = [
        ("URL", row.url.clone()),
        ("Status", row.status.to_string()),
        ("Protocol", row.protocol.clone()),
        ("Process", format!("{} ({})", row.process.as_deref().unwrap_or("unknown"), row.pid)),
        ("Container", row.container.clone().unwrap_or_default()),
        ("From, to", format!("{} → {}", row.source, row.destination)),
        ("Read at", tls),
        ("Bodies", format!("{} sent, {} received", size(row.request_size), size(row.response_size))),
        ("Type", row.response_type.clone().unwrap_or_default()),
        ("Missing", if row.damage > 0 { format!("{} ranges", row.damage) } else { String::new() }),
        ("Request", row.id.clone()),
    ];
    let lines = facts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
        let name = Span::styled(format!("{name:<10} "), Style::new().add_modifier(Modifier::DIM));
        Line::from(vec![name, Span::raw(visible_line(&value))])
    });
    Paragraph::new(lines.collect::<Vec<_>>()).block(Block::new().borders(Borders::TOP))
}

fn keys(state: &State) -> Line<'static> {
    if state.typing {
        return Line::raw(format!("/{}▏", visible_line(&state.words)));
    }
    let words =
        if state.words.is_empty() { String::new() } else { format!("   words: {}", visible_line(&state.words)) };
    let failed = if state.failed_only { "   only errors" } else { "" };
    Line::styled(
        format!("q quit  / words  e errors  p pause  ↑↓ choose  Enter open  Home newest{words}{failed}"),
        Style::new().add_modifier(Modifier::DIM),
    )
}

fn time(ms: f64) -> String {
    if ms < 1000.0 { format!("{ms:.1} ms") } else { format!("{:.2} s", ms / 1000.0) }
}

#[expect(clippy::cast_precision_loss, reason = "sizes for people")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} K", bytes as f64 / 1024.0),
        _ => format!("{:.1} M", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::News;

    #[test]
    fn hostile_text_stays_text() {
        let mut state = State::default();
        let row = Row { path: "/\u{1b}[31m\u{202e}x".into(), status: 200, ..Row::default() };
        state.take(News::Row(Box::new(row))).expect("taken");
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &state)).expect("drawn");
        let text: String = terminal.backend().buffer().content().iter().map(ratatui::buffer::Cell::symbol).collect();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
        assert!(text.contains("1 transactions"), "{text}");
    }
}
