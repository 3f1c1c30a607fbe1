'use strict';

// Makes the sliders and plots in an element work.
function enliven(root) {
  // A slider shows one of its frames, or all of them.
  for (const slider of root.querySelectorAll('.slider')) {
    const range = slider.querySelector('input[type=range]');
    const all = slider.querySelector('input[type=checkbox]');
    const output = slider.querySelector('output');
    const frames = [...slider.querySelectorAll('.frame')];
    const show = () => {
      const name = frames[range.valueAsNumber].dataset.name;
      frames.forEach((frame, i) => { frame.hidden = !all.checked && i !== range.valueAsNumber; });
      slider.classList.toggle('open', all.checked);
      range.disabled = all.checked;
      range.setAttribute('aria-valuetext', name);
      output.textContent = all.checked ? 'all' : name;
    };
    range.addEventListener('input', show);
    all.addEventListener('change', show);
    slider.classList.add('live');
    show();
  }

  // A plot tells the values under the pointer, or where the arrow keys have moved to.
  for (const svg of root.querySelectorAll('.plot svg')) {
    const reading = svg.closest('.plot').querySelector('.reading');
    const points = [...svg.querySelectorAll('[data-points]')].flatMap((line) =>
      line.dataset.points.split(';').filter(Boolean).map((point) => {
        const [across, step, value, mean] = point.split(' ').map(Number);
        return { across, step, value, mean, line };
      }));
    if (points.length === 0) continue;
    const cursor = document.createElementNS(svg.namespaceURI, 'path');
    svg.append(cursor);
    let at = -1;
    const show = (index) => {
      at = Math.min(Math.max(index, 0), points.length - 1);
      const { across, step, value, mean, line } = points[at];
      cursor.setAttribute('d', `M${across} ${svg.dataset.top}V${svg.dataset.bottom}`);
      cursor.setAttribute('stroke', line.getAttribute('stroke'));
      reading.textContent = `${line.dataset.name}, step ${step}: ${value.toPrecision(4)} (smoothed ${mean.toPrecision(4)})`;
    };
    const hide = () => { cursor.removeAttribute('d'); reading.textContent = ''; at = -1; };
    svg.addEventListener('pointermove', (event) => {
      const box = svg.getBoundingClientRect();
      const across = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const distance = (point) => Math.abs(point.across - across);
      show(points.reduce((best, point, i) => distance(point) < distance(points[best]) ? i : best, 0));
    });
    svg.addEventListener('pointerleave', hide);
    svg.addEventListener('blur', hide);
    svg.setAttribute('tabindex', '0');
    svg.addEventListener('keydown', (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -50, PageUp: 50 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      show(at < 0 ? (by > 0 ? 0 : points.length - 1) : at + by);
    });
  }
}

// The chosen image is shown large, wherever it is in the page.
const large = document.getElementById('large');
document.addEventListener('click', (event) => {
  const button = event.target.closest('.zoom');
  if (button === null) return;
  large.replaceChildren(button.querySelector('img').cloneNode());
  large.showModal();
});
large.addEventListener('click', () => large.close());

enliven(document);
