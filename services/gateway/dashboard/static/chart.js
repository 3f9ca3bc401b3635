// Draws a Vega-Lite chart that the gateway made. The bundle is loaded where the first chart comes into sight.
// The expressions of a chart are interpreted, never compiled: the page's policy allows no code made of text.

let bundle;

function loaded() {
  bundle ??= import("/dashboard/charts/vega.js").then(() => window.vegaEmbed);
  return bundle;
}

const DARK = { ink: "#ececec", grid: "#3a3a3a", quiet: "#8a8a8a" };

function dark(config) {
  const text = { labelColor: DARK.ink, titleColor: DARK.ink };
  return {
    ...config,
    background: "transparent",
    title: { ...config.title, color: DARK.ink, subtitleColor: DARK.ink },
    axis: { ...config.axis, ...text, gridColor: DARK.grid, domainColor: DARK.quiet, tickColor: DARK.quiet },
    legend: { ...config.legend, ...text },
    header: { ...config.header, ...text },
    text: { ...config.text, color: DARK.ink },
  };
}

class ChoirChart extends HTMLElement {
  connectedCallback() {
    if (this.seen) return;
    this.seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.seen.disconnect();
      this.draw();
    }, { rootMargin: "200px" });
    this.say("");
    this.seen.observe(this);
  }

  say(text) {
    const line = document.createElement("p");
    line.className = "note";
    line.textContent = text || `${this.getAttribute("label")}: being drawn`;
    this.replaceChildren(line);
  }

  async draw() {
    try {
      const reply = await fetch(this.getAttribute("src"));
      const told = await reply.json();
      if (!told.spec) {
        this.say(`${this.getAttribute("label")}: ${told.words}`);
        return;
      }
      const embed = await loaded();
      const spec = told.spec;
      spec.config = { ...spec.config, background: "transparent" };
      if (matchMedia("(prefers-color-scheme: dark)").matches) spec.config = dark(spec.config);
      const place = document.createElement("div");
      place.className = "wide chart";
      place.tabIndex = 0;
      place.setAttribute("role", "img");
      place.setAttribute("aria-label", `${this.getAttribute("label")}; ${told.words}`);
      this.replaceChildren(place);
      await embed(place, spec, { actions: false, ast: true, renderer: "canvas", defaultStyle: false, tooltip: { disableDefaultStyle: true } });
      this.dataset.drawn = "yes";
    } catch (error) {
      this.say(`${this.getAttribute("label")} cannot be drawn: ${error.message}`);
    }
  }
}

customElements.define("choir-chart", ChoirChart);
