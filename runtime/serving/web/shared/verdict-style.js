// Style of <unmask-verdict>. Not a <style> element, which the security policy of a page may forbid.
//
// Variables that begin with --unmask- are for the page; those with --_ are internal. Browser sources of OBS may have
// Chromium 103, so this uses nothing newer.

const STYLE = `
  :host {
    --_font: var(--unmask-font, system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif);
    --_background: var(--unmask-background, rgb(13 17 23 / 84%));
    --_fake-background: var(--unmask-fake-background, rgb(84 12 12 / 92%));
    --_text: var(--unmask-text, #d5dbe3);
    --_radius: var(--unmask-radius, .5em);
    --_real: var(--unmask-real, #38d39f);
    --_uncertain: var(--unmask-uncertain, #ffc145);
    --_fake: var(--unmask-fake, #ff7d73);
    --_warming: var(--unmask-warming, #8ab4ff);
    --_none: var(--unmask-none, #b4bdc9);
    --_shadow: 0 .1em .5em rgb(0 0 0 / 40%);
    --_text-shadow: none;
    display: inline-block;
    overflow: clip;
    overflow-clip-margin: .6em;
    font: 600 var(--unmask-size, 28px)/1.15 var(--_font);
    color: #fff;
  }
  :host([theme="light"]) {
    --_background: var(--unmask-background, rgb(255 255 255 / 92%));
    --_fake-background: var(--unmask-fake-background, rgb(255 226 223 / 95%));
    --_text: var(--unmask-text, #3a4655);
    --_real: var(--unmask-real, #08704c);
    --_uncertain: var(--unmask-uncertain, #7d4e00);
    --_fake: var(--unmask-fake, #b3180f);
    --_warming: var(--unmask-warming, #2455c4);
    --_none: var(--unmask-none, #4a5563);
    color: #17202c;
  }
  :host([theme="contrast"]) {
    --_background: var(--unmask-background, #000);
    --_fake-background: var(--unmask-fake-background, #000);
    --_text: var(--unmask-text, #fff);
    --_real: var(--unmask-real, #fff);
    --_uncertain: var(--unmask-uncertain, #ffe14d);
    --_fake: var(--unmask-fake, #ff9d94);
    --_warming: var(--unmask-warming, #fff);
    --_none: var(--unmask-none, #fff);
    --_shadow: 0 0 0 .12em #fff;
  }
  :host([theme="text"]) {
    --_background: var(--unmask-background, transparent);
    --_fake-background: var(--unmask-fake-background, transparent);
    --_text: var(--unmask-text, #fff);
    --_shadow: none;
    --_fake: var(--unmask-fake, #ff9d94);
    /* Letters with a dark edge, which are legible on any video. */
    --_text-shadow: .05em .05em 0 #000, -.05em .05em 0 #000, .05em -.05em 0 #000, -.05em -.05em 0 #000, 0 0 .4em #000;
  }
  :host([hidden]), li[hidden] { display: none; }
  ul { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; gap: .4em; }
  li {
    --tone: var(--_none);
    display: grid;
    grid-template-columns: auto 1fr auto;
    align-items: center;
    column-gap: .6em;
    box-sizing: border-box;
    min-width: 11em;
    padding: .5em .8em .5em .5em;
    border-radius: var(--_radius);
    border: 0 solid var(--tone);
    border-left-width: .22em;
    background: var(--_background);
    box-shadow: var(--_shadow);
    text-shadow: var(--_text-shadow);
  }
  li[data-state="real"] { --tone: var(--_real); }
  li[data-state="uncertain"] { --tone: var(--_uncertain); border-left-style: dashed; }
  li[data-state="fake"] { --tone: var(--_fake); border-width: .12em .12em .12em .22em; background: var(--_fake-background); }
  li[data-state="warming"] { --tone: var(--_warming); border-left-style: dotted; }
  /* No verdict: a dashed line around it and stripes, which cannot be taken for a verdict, whatever colours one sees. */
  li[data-state="none"] {
    border: .1em dashed var(--tone);
    background-image: repeating-linear-gradient(135deg, transparent 0 .45em, rgb(128 140 155 / 28%) .45em .9em);
  }
  svg {
    width: 1.5em;
    height: 1.5em;
    fill: none;
    stroke: var(--tone);
    stroke-width: 2.4;
    stroke-linecap: round;
    stroke-linejoin: round;
  }
  .label { color: var(--tone); letter-spacing: .01em; }
  .detail { display: block; margin-top: .15em; font-weight: 500; font-size: .55em; color: var(--_text); overflow-wrap: anywhere; }
  .score { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
  .score b { font-weight: inherit; }
  .score small { display: block; font-weight: 500; font-size: .45em; color: var(--_text); }
  .more { margin: .7em 0 0; padding: .3em .8em; border-radius: var(--_radius); background: var(--_background); font-size: .55em; font-weight: 500; color: var(--_text); text-shadow: var(--_text-shadow); }
  .more:empty { display: none; }
  .visually-hidden { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); }

  /* With the attribute follow, the element covers the video and each badge stays at its face. */
  :host([follow]) { display: block; position: absolute; inset: 0; overflow: hidden; }
  :host([follow]) .corner { position: absolute; margin: 24px; right: 0; bottom: 0; }
  :host([follow][position*="left"]) .corner { right: auto; left: 0; }
  :host([follow][position^="top"]) .corner { bottom: auto; top: 0; }
  /* The order of the boxes is among themselves only: not above the corner, nor above other parts of the page. */
  .followed { isolation: isolate; }
  .boxes { display: contents; }
  .boxes li { position: absolute; width: max-content; min-width: 0; max-width: 100%; padding: .25em .6em .25em .35em; column-gap: .4em; }
  .boxes .detail, .boxes .score small { display: none; }
  .boxes svg { width: 1.1em; height: 1.1em; }
  .outline { position: absolute; box-sizing: border-box; border: .12em solid var(--tone, var(--_none)); border-radius: .25em; box-shadow: 0 0 0 1px rgb(0 0 0 / 55%), inset 0 0 0 1px rgb(0 0 0 / 55%); }
  .outline[data-state="real"] { --tone: var(--_real); }
  .outline[data-state="uncertain"] { --tone: var(--_uncertain); border-style: dashed; }
  .outline[data-state="fake"] { --tone: var(--_fake); border-width: .2em; }
  .outline[data-state="warming"] { --tone: var(--_warming); border-style: dotted; }
  @media (prefers-reduced-motion: no-preference) {
    .boxes li, .outline { transition: left .12s linear, top .12s linear, width .12s linear, height .12s linear; }
  }
`;

export function verdictStyle() {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  return sheet;
}
