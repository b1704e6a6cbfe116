#include "report.h"

#include "../../data/formats/file.h"
#include "../../data/formats/image.h"

namespace stairgrad::examples {

namespace {

const char* const style = R"(
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6676; --line: #dde2ea; --page: #f6f7f9; --card: #fff;
        --c0: #2166c4; --c1: #d0571c; --c2: #158466; --c3: #8446b8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa5b5; --line: #333b48; --page: #14181f; --card: #1c222c;
          --c0: #6aa5f5; --c1: #f29159; --c2: #4fc9a4; --c3: #c08bea; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
       max-width: 1040px; padding: 28px 20px 60px; }
h1 { margin: 0; font-size: 26px; } h2 { margin: 34px 0 10px; font-size: 19px; } h3 { margin: 0 0 8px; font-size: 15px; }
p { margin: 6px 0; } .subtitle { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin: 10px 0;
        overflow-x: auto; }
.half { display: inline-block; vertical-align: top; width: calc(50% - 12px); box-sizing: border-box; margin-right: 8px; }
@media (max-width: 760px) { .half { width: 100%; } }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; text-align: right; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
svg { width: 100%; max-width: 720px; height: auto; } svg text { font-size: 11px; fill: var(--soft); } svg .label { fill: var(--ink); }
svg .small { font-size: 9px; }
.end { text-anchor: end; } .middle { text-anchor: middle; } .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 2; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
.b0 { background: var(--c0); } .b1 { background: var(--c1); } .b2 { background: var(--c2); } .b3 { background: var(--c3); }
.legend span { margin-right: 16px; color: var(--soft); font-size: 13px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 5px; vertical-align: -1px; }
figure { display: inline-block; margin: 0 10px 10px 0; text-align: center; vertical-align: top; }
figure img { image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption { font-size: 12px; color: var(--soft); margin-top: 3px; white-space: pre-line; }
)";

std::string heading(const std::string& title) {
  return title.empty() ? "" : "<h3>" + escape_html(title) + "</h3>\n";
}

}  // namespace

Report::Report(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Report::section(const std::string& title) { body_ += "<h2>" + escape_html(title) + "</h2>\n"; }

void Report::paragraph(const std::string& text) { body_ += "<p>" + escape_html(text) + "</p>\n"; }

void Report::table(const Table& table) { body_ += "<div class=\"card\">\n" + table.html() + "</div>\n"; }

void Report::curves(const std::string& title, const std::string& x_label, const std::string& y_label,
                    const std::vector<Curve>& curves) {
  body_ += "<div class=\"card half\">" + heading(title) + line_chart(x_label, y_label, curves) + "</div>\n";
}

void Report::bars(const std::string& title, const std::vector<std::string>& series,
                  const std::vector<BarRow>& rows) {
  body_ += "<div class=\"card\">" + heading(title) + bar_chart(series, rows) + "</div>\n";
}

void Report::pictures(const std::string& title, const std::vector<Picture>& pictures, int width) {
  body_ += "<div class=\"card\">" + heading(title);
  for (const auto& [image, caption] : pictures) {
    body_ += text("<figure><img width=\"", width, "\" alt=\"", escape_html(caption),
                  "\" src=\"data:image/png;base64,", data::base64(data::encode_png(image)), "\"><figcaption>",
                  escape_html(caption), "</figcaption></figure>\n");
  }
  body_ += "</div>\n";
}

std::string Report::html() const {
  return text("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
              "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
              escape_html(title_), "</title>\n<style>", style, "</style>\n</head>\n<body>\n<h1>",
              escape_html(title_), "</h1>\n<p class=\"subtitle\">", escape_html(subtitle_), "</p>\n", body_,
              "</body>\n</html>\n");
}

void Report::save(const std::string& path) const { data::atomic_write(path, html()); }

}  // namespace stairgrad::examples
