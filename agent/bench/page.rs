//! The results as one page that needs nothing else.

use std::fmt::Write as _;

use plotters::prelude::*;

use super::{
    load::Measured,
    plan::{Cell, Results, Step, WithAgent},
};

const SIZE: (u32, u32) = (420, 260);
const NONE: RGBColor = RGBColor(120, 120, 120);
const EMPTY: RGBColor = RGBColor(217, 119, 6);
const AGENT: RGBColor = RGBColor(37, 99, 235);
const OTHER: RGBColor = RGBColor(147, 51, 234);

/// Numbers are ours and names are of a fixed set: nothing of it needs to be escaped but the machine's own words.
pub fn page(results: &Results, verdict: &str) -> anyhow::Result<String> {
    let mut body = String::new();
    for cell in &results.cells {
        write!(body, "<section><h2>{}</h2><div class=plots>", escape(&cell.line()))?;
        body += &plot("requests answered per second", cell, |step| figure(step, |m| m.per_second))?;
        body += &plot("p50 latency, us", cell, |step| figure(step, |m| m.p50_us as f64))?;
        body += &plot("p99 latency, us", cell, |step| figure(step, |m| m.p99_us as f64))?;
        body += &plot("p99.9 latency, us", cell, |step| figure(step, |m| m.p999_us as f64))?;
        body += &plot("processors that the server keeps busy", cell, |step| figure(step, |m| m.server_cpu))?;
        body += &plot("processors that the agent keeps busy", cell, |step| agent(step, |a| a.agent_cpu))?;
        body += &plot("resident memory of the agent, MiB", cell, |step| {
            agent(step, |a| a.agent_resident_bytes as f64 / f64::from(1 << 20))
        })?;
        body += &plot("lost, by the ledger", cell, |step| agent(step, |a| a.lost() as f64))?;
        body += "</div>";
        table(&mut body, cell)?;
        body += "</section>";
    }
    Ok(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>
<title>ringtap capacity</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:88rem;margin:2rem auto;padding:0 1rem;color:#111;background:#fff}}
h1{{font-size:1.4rem}} h2{{font-size:1rem;font-family:ui-monospace,monospace;white-space:pre-wrap}}
.verdict{{font-size:1.1rem;border-left:4px solid #2563eb;padding:.5rem 1rem;background:#eff6ff}}
.plots{{display:flex;flex-wrap:wrap;gap:.5rem}} table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
th,td{{text-align:right;padding:.15rem .6rem;border-bottom:1px solid #ddd}} th{{font-weight:600}}
.none{{color:#777}} .empty{{color:#b45309}} .agent{{color:#2563eb}} .other{{color:#9333ea}}
</style><h1>What this machine carries with ringtap</h1><p class=verdict>{}</p>
<p>{}, {} processors, Linux {}; rings of {} MiB; {} seconds a step, after one to warm up; {} rounds. Every step is measured
<b class=none>without probes</b>, <b class=empty>with programs that do nothing on the same probes</b>, and
<b class=agent>with the agent</b>{}. On virtual machines a probe that the processor must single-step costs many times what it
does on bare metal. {}</p>{body}</html>
",
        escape(verdict),
        escape(&results.processor),
        results.processors,
        escape(&results.kernel),
        results.ring_bytes >> 20,
        results.seconds,
        results.rounds,
        results
            .other
            .as_ref()
            .map_or_else(String::new, |other| format!(", and <b class=other>with {} in its place</b>", escape(other))),
        escape(&results.places()),
    ))
}

/// A figure of each way.
fn figure(step: &Step, of: impl Fn(&Measured) -> f64) -> [Option<f64>; 4] {
    step.ways.measured().map(|way| way.map(&of))
}

/// A figure that only the agent has.
fn agent(step: &Step, of: impl Fn(&WithAgent) -> f64) -> [Option<f64>; 4] {
    [None, None, Some(of(&step.ways.agent)), None]
}

/// One plot: the ways over the load, as SVG.
fn plot(title: &str, cell: &Cell, of: impl Fn(&Step) -> [Option<f64>; 4]) -> anyhow::Result<String> {
    let load = |step: &Step| step.ways.none.per_second;
    let (widest, highest) = cell
        .steps
        .iter()
        .fold((1.0f64, 0.001f64), |(x, y), step| (x.max(load(step)), of(step).into_iter().flatten().fold(y, f64::max)));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..widest * 1.05, 0.0..highest * 1.1)?;
        chart.configure_mesh().x_desc("load, requests/s").x_labels(5).y_labels(5).light_line_style(WHITE).draw()?;
        for (at, colour) in [NONE, EMPTY, AGENT, OTHER].into_iter().enumerate() {
            let points: Vec<(f64, f64)> =
                cell.steps.iter().filter_map(|step| Some((load(step), of(step)[at]?))).collect();
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn table(out: &mut String, cell: &Cell) -> anyhow::Result<()> {
    *out += "<table><tr><th>asked/s<th class=none>none/s<th class=none>p50<th class=none>p99<th class=none>p99.9 us\
             <th class=empty>empty/s<th class=empty>p99 us<th class=agent>agent/s<th class=agent>p50<th class=agent>p99\
             <th class=agent>p99.9 us<th class=agent>CPU<th class=agent>MiB<th class=agent>exchanges<th class=agent>lost\
             <th class=other>other/s<th class=other>p99 us";
    for step in &cell.steps {
        let asked = step.asked_per_second.map_or_else(|| "all".into(), |rate| rate.to_string());
        let (none, empty) = (&step.ways.none, &step.ways.empty);
        write!(
            out,
            "<tr><td>{asked}<td>{:.0}<td>{}<td>{}<td>{}<td>{:.0}<td>{}",
            none.per_second, none.p50_us, none.p99_us, none.p999_us, empty.per_second, empty.p99_us
        )?;
        let (agent, m) = (&step.ways.agent, &step.ways.agent.measured);
        write!(
            out,
            "<td>{:.0}<td>{}<td>{}<td>{}<td>{:.2}<td>{}<td>{}<td>{}",
            m.per_second,
            m.p50_us,
            m.p99_us,
            m.p999_us,
            agent.agent_cpu,
            agent.agent_resident_bytes >> 20,
            agent.ledger.get("exchanges_delivered").copied().unwrap_or(0),
            agent.lost(),
        )?;
        match &step.ways.other {
            Some(other) => write!(out, "<td>{:.0}<td>{}", other.per_second, other.p99_us)?,
            None => *out += "<td>–<td>–",
        }
    }
    *out += "</table>";
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
