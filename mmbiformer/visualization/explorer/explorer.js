'use strict';
// What each array is: mmbiformer/visualization/explorer/page.py and codes.py.
const content = JSON.parse(document.getElementById('content').textContent);
const streams = [...document.querySelectorAll('script.stream')];
const {image, colours, truth} = content;
const MOST_NUMBERS = 16; // regions that are numbered

const bytesOf = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const floatsOf = text => new Float32Array(bytesOf(text).buffer);
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
const tables = {attention: colours.attention.map(rgb), affinity: colours.affinity.map(rgb)};

// A routed attention: its maps of queries and keys, and where they lie in the image.
class RoutedMap {
  constructor(given) {
    Object.assign(this, given);
    const s = this.partitionFactor;
    this.regionRows = Math.ceil(this.rows / s);
    this.regionColumns = Math.ceil(this.columns / s);
    this.keyRegionRows = Math.ceil(this.keyRows / s);
    this.keyRegionColumns = Math.ceil(this.keyColumns / s);
    this.realRows = Math.ceil(this.rows / this.regionRows);
    this.realColumns = Math.ceil(this.columns / this.regionColumns);
    this.indices = new Uint16Array(bytesOf(given.indices).buffer);
    for (const name of ['affinity', 'weights', 'steps', 'offsets', 'padKey']) {
      this[name] = given[name] && floatsOf(given[name]);
    }
  }

  // Row and column of the token at a place of the image, or null where the model does not see it.
  tokenAt(x, y) {
    const column = Math.floor((this.scale[0] * x + this.shift[0]) / this.stride[0]);
    const row = Math.floor((this.scale[1] * y + this.shift[1]) / this.stride[1]);
    const isInside = row >= 0 && column >= 0 && row < this.rows && column < this.columns;
    return isInside ? {row, column} : null;
  }

  // Left, top, right and bottom in the image of a rectangle of tokens.
  boxOf(top, left, bottom, right) {
    const [x0, x1] = [left, right].map(x => (x * this.stride[0] - this.shift[0]) / this.scale[0]);
    const [y0, y1] = [top, bottom].map(y => (y * this.stride[1] - this.shift[1]) / this.scale[1]);
    return [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  }

  boxOfRegion(region) {
    const row = Math.floor(region / this.partitionFactor), column = region % this.partitionFactor;
    const [h, w] = [this.regionRows, this.regionColumns];
    return this.boxOf(row * h, column * w, (row + 1) * h, (column + 1) * w);
  }

  // The box of the whole map of keys, or of all regions.
  boxOfKeys() {
    const rows = this.keyRows * this.regionRows / this.keyRegionRows;
    const columns = this.keyColumns * this.regionColumns / this.keyRegionColumns;
    return this.boxOf(0, 0, rows, columns);
  }

  boxOfRegions() {
    const s = this.partitionFactor;
    return this.boxOf(0, 0, s * this.regionRows, s * this.regionColumns);
  }

  regionOf({row, column}) {
    const regionRow = Math.floor(row / this.regionRows);
    return regionRow * this.partitionFactor + Math.floor(column / this.regionColumns);
  }

  routes(region) {
    return this.indices.subarray(region * this.topk, (region + 1) * this.topk);
  }

  // How often regions are chosen by the regions of an iterable.
  countChosen(regions) {
    const counts = new Float32Array(this.partitionFactor ** 2);
    for (const region of regions) for (const chosen of this.routes(region)) counts[chosen]++;
    return counts;
  }

  * realRegions() {
    for (let row = 0; row < this.realRows; row++) {
      for (let column = 0; column < this.realColumns; column++) {
        yield row * this.partitionFactor + column;
      }
    }
  }

  // The tokens of the map of keys that a region has: all of its own but padding.
  keysOf(region) {
    const [h, w] = [this.keyRegionRows, this.keyRegionColumns];
    const top = Math.floor(region / this.partitionFactor) * h;
    const left = region % this.partitionFactor * w;
    const keys = [];
    for (let row = top; row < Math.min(top + h, this.keyRows); row++) {
      for (let column = left; column < Math.min(left + w, this.keyColumns); column++) {
        keys.push(row * this.keyColumns + column);
      }
    }
    return keys;
  }

  // What a token attends to: shares of each key token (0 where it does not look), of each routed
  // region without its padding, and of all padding; of one head, or the mean of all for null.
  attention(codes, token, head) {
    const region = this.regionOf(token);
    const routed = [...this.routes(region)].map((number, rank) => {
      const keys = this.keysOf(number);
      const padding = this.padKey ? this.keyRegionRows * this.keyRegionColumns - keys.length : 0;
      return {keys, padding, weight: this.weights ? this.weights[region * this.topk + rank] : 1};
    });
    const found = {
      tokens: new Float32Array(this.keyRows * this.keyColumns),
      regions: new Float64Array(this.topk),
      padding: 0,
    };
    const heads = head === null ? [...Array(this.heads).keys()] : [head];
    for (const n of heads) {
      const {ofKey, ofPadding} = this.logits(codes, token, n);
      const logits = routed.map(({keys, weight}) => keys.map(key => weight * ofKey(key)));
      let most = -Infinity;
      for (const [rank, {padding, weight}] of routed.entries()) {
        for (const logit of logits[rank]) most = Math.max(most, logit);
        if (padding) most = Math.max(most, weight * ofPadding);
      }
      const powers = logits.map(some => some.map(logit => Math.exp(logit - most)));
      const onPadding = routed.map(x => x.padding && x.padding * Math.exp(x.weight * ofPadding - most));
      const sum = values => values.reduce((a, b) => a + b, 0);
      const total = heads.length * (sum(powers.map(sum)) + sum(onPadding));
      for (const [rank, {keys}] of routed.entries()) {
        keys.forEach((key, i) => { found.tokens[key] += powers[rank][i] / total; });
        found.regions[rank] += sum(powers[rank]) / total;
      }
      found.padding += sum(onPadding) / total;
    }
    return found;
  }

  // Logits of a token's query of one head: a function of the key token, and that of padding.
  logits(codes, {row, column}, head) {
    const {dim, steps, offsets, padKey} = this;
    const tokens = this.rows * this.columns, keyTokens = this.keyRows * this.keyColumns;
    const place = row * this.columns + column, query = new Float64Array(dim);
    let ofMean = 0, ofPadding = 0;
    for (let d = 0; d < dim; d++) {
      const i = head * dim + d, j = this.heads * dim + i; // of queries, of keys
      const value = offsets[i] + steps[i] * codes.query[i * tokens + place];
      query[d] = value * steps[j];
      ofMean += value * offsets[j];
      if (padKey) ofPadding += value * padKey[i];
    }
    const ofKey = key => {
      let logit = ofMean;
      for (let d = 0; d < dim; d++) logit += query[d] * codes.key[(head * dim + d) * keyTokens + key];
      return logit;
    };
    return {ofKey, ofPadding};
  }
}

// Codes of maps, inflated when they are first needed.
function codesOf(map) {
  map.inflated ??= inflate(map).then(codes => { map.codes = codes; });
  return map.inflated;
}

async function inflate(map) {
  const url = `data:application/octet-stream;base64,${streams[map.stream].textContent}`;
  const {body} = await fetch(url);
  const stream = body.pipeThrough(new DecompressionStream('deflate'));
  const values = new Int8Array(await new Response(stream).arrayBuffer());
  const end = map.heads * map.dim * map.rows * map.columns;
  return {query: values.subarray(0, end), key: values.subarray(end)};
}

function addNode(parent, name, attributes = {}, text = '') {
  const namespace = parent instanceof SVGElement ? parent.namespaceURI : 'http://www.w3.org/1999/xhtml';
  const node = document.createElementNS(namespace, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  parent.append(node);
  return node;
}

function addBox(parent, [left, top, right, bottom], name, colour) {
  const place = {x: left, y: top, width: right - left, height: bottom - top};
  addNode(parent, 'rect', {...place, class: 'halo'});
  return addNode(parent, 'rect', {...place, class: name, ...colour && {style: `stroke: ${colour}`}});
}

const shown = name => document.getElementById(name).checked;
const query = {x: image.width / 2, y: image.height / 2, isPinned: false};

// A model beside its image, and what is chosen of it.
class Panel {
  constructor(root, model) {
    Object.assign(this, {root, model, maps: model.maps.map(given => new RoutedMap(given))});
    this.find = selector => root.querySelector(selector);
    this.image = this.find('.image');
    this.image.style.aspectRatio = `${image.width} / ${image.height}`;
    this.image.style.width = `min(100%, ${80 * image.width / image.height}vh)`;
    this.find('.photo').src = image.source;
    this.find('.marks').setAttribute('viewBox', `0 0 ${image.width} ${image.height}`);
    this.find('.says').textContent = model.found.text;
    this.find('.says').hidden = !model.found.text;
    this.select = name => this.find(`select.${name}`);
    this.maps.forEach((map, i) => {
      const name = `${map.name}: ${map.topk} of ${map.partitionFactor ** 2} regions, ${map.rows} x ${map.columns} tokens`;
      addNode(this.select('map'), 'option', {value: i}, name);
    });
    this.select('map').value = this.maps.length - 1;
    addNode(this.select('layer'), 'option', {value: 'attention'}, 'attention of the query');
    addNode(this.select('layer'), 'option', {value: 'chosen'}, 'how many regions route there');
    if (model.missed.includes(true)) {
      addNode(this.select('layer'), 'option', {value: 'missed'}, 'where regions of missed objects route');
    }
    addNode(this.select('layer'), 'option', {value: 'none'}, 'none');
    this.listHeads();
    this.listThings();
    this.listen();
  }

  get map() { return this.maps[this.select('map').value]; }
  get head() { return this.select('head').value === '' ? null : Number(this.select('head').value); }

  listHeads() {
    const chosen = this.select('head').value;
    this.select('head').replaceChildren();
    addNode(this.select('head'), 'option', {value: ''}, `mean of ${this.map.heads}`);
    for (let n = 0; n < this.map.heads; n++) addNode(this.select('head'), 'option', {value: n}, n + 1);
    this.select('head').value = chosen < this.map.heads ? chosen : '';
  }

  listen() {
    const show = () => { this.draw(); this.speak(); };
    this.select('map').addEventListener('change', () => { this.listHeads(); show(); });
    for (const name of ['head', 'layer']) this.select(name).addEventListener('change', show);
    const ask = event => {
      const box = this.image.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * image.width;
      const y = (event.clientY - box.top) / box.height * image.height;
      setQuery(x, y);
    };
    this.image.addEventListener('pointermove', event => {
      if (event.pointerType === 'mouse' ? !query.isPinned : event.buttons) ask(event);
    });
    this.image.addEventListener('pointerdown', event => {
      query.isPinned = true;
      ask(event);
      speak();
    });
    this.image.addEventListener('keydown', event => this.press(event));
    new ResizeObserver(() => this.drawThings()).observe(this.image);
  }

  press(event) {
    const {map} = this, by = event.shiftKey ? [map.regionColumns, map.regionRows] : [1, 1];
    const [across, down] = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key] ?? [0, 0];
    const turned = {PageUp: -1, PageDown: 1}[event.key];
    if (across || down) {
      query.isPinned = true;
      const [width, height] = map.stride.map((x, i) => x / Math.abs(map.scale[i]));
      setQuery(query.x + across * by[0] * width, query.y + down * by[1] * height);
    } else if (turned) {
      const to = Number(this.select('map').value) + turned;
      this.select('map').value = Math.max(0, Math.min(this.maps.length - 1, to));
      this.select('map').dispatchEvent(new Event('change'));
    } else {
      return;
    }
    event.preventDefault();
    speak();
  }

  draw() {
    const start = performance.now();
    const {map, head} = this, layer = this.select('layer').value, token = map.tokenAt(query.x, query.y);
    const region = token && map.regionOf(token);
    const attention = token && map.codes ? map.attention(map.codes, token, head) : null;
    if (!map.codes) codesOf(map).then(() => { if (map === this.map) { this.draw(); if (this.isSpoken) this.speak(); } });
    this.image.classList.toggle('grey', shown('grey') && layer !== 'none');
    this.drawOutlines(region);
    if (layer === 'attention') this.drawHeat(attention);
    else if (layer === 'none') this.drawColours(null);
    else this.drawCounts(layer);
    this.describe(token, region, attention);
    performance.measure('answer', {start, detail: {complete: attention !== null}});
  }

  drawOutlines(region) {
    const {map} = this, outlines = this.find('.outlines'), cross = this.find('.query');
    outlines.replaceChildren();
    cross.replaceChildren();
    if (region !== null && shown('regions')) {
      const routed = map.routes(region), size = this.letters();
      for (let rank = routed.length - 1; rank >= 0; rank--) {
        addBox(outlines, map.boxOfRegion(routed[rank]), 'region', this.colourOf(region, rank));
      }
      if (routed.length <= MOST_NUMBERS) {
        routed.forEach((number, rank) => {
          const [left, top] = map.boxOfRegion(number);
          const place = {x: left + .25 * size, y: top + size, 'font-size': size, 'stroke-width': .2 * size};
          addNode(outlines, 'text', place, rank + 1);
        });
      }
      addNode(cross, 'rect', {...this.rectangle(map.boxOfRegion(region)), class: 'own'});
    }
    const reach = 1.2 * this.letters(), path = `M${query.x - reach} ${query.y}h${2 * reach}M${query.x} ${query.y - reach}v${2 * reach}`;
    addNode(cross, 'path', {d: path, class: 'halo'});
    addNode(cross, 'path', {d: path, class: 'cross'});
  }

  rectangle([left, top, right, bottom]) {
    return {x: left, y: top, width: right - left, height: bottom - top};
  }

  // Regions of the highest affinity are the lightest.
  colourOf(region, rank) {
    const start = region * this.map.topk, values = this.map.affinity.subarray(start, start + this.map.topk);
    const [high, low] = [values[0], values[values.length - 1]];
    return colours.affinity[high > low ? Math.round(255 * (values[rank] - low) / (high - low)) : 255];
  }

  // Letters of the drawing that are 12 px on the screen.
  letters() { return 12 * image.width / (this.image.clientWidth || image.width); }

  drawHeat(attention) {
    if (!attention) return this.drawColours(null);
    const {map} = this, shares = attention.tokens;
    let most = 0;
    for (const share of shares) most = Math.max(most, share);
    const head = this.head === null ? `mean of ${map.heads} heads` : `of head ${this.head + 1}`;
    const what = {
      values: shares, rows: map.keyRows, columns: map.keyColumns, table: tables.attention, most,
      box: map.boxOfKeys(), isShown: value => value > 0,
    };
    this.drawColours(what, ['0 %', percent(most, 2), `of the attention on a token, ${head}`]);
  }

  drawCounts(layer) {
    const {map} = this, s = map.partitionFactor;
    const regions = layer === 'chosen' ? map.realRegions() : this.missedRegions();
    const values = map.countChosen(regions), most = Math.max(1, ...values);
    const what = {
      values, rows: s, columns: s, table: tables.affinity, most, box: map.boxOfRegions(),
      isShown: value => layer === 'chosen' || value > 0,
    };
    const whose = layer === 'chosen' ? 'regions' : 'regions of missed objects';
    this.drawColours(what, ['0', String(most), `${whose} route there`]);
  }

  * missedRegions() {
    for (const [i, {box: [left, top, right, bottom]}] of truth.things.entries()) {
      const token = this.model.missed[i] && this.map.tokenAt((left + right) / 2, (top + bottom) / 2);
      if (token) yield this.map.regionOf(token);
    }
  }

  drawColours(what, [least, most, meaning] = ['', '', '']) {
    const heat = this.find('.heat'), bar = this.find('.bar');
    heat.hidden = !what;
    bar.hidden = !what;
    this.find('.least').textContent = least;
    this.find('.most').textContent = most;
    this.find('.meaning').textContent = meaning;
    if (!what) return;
    heat.width = what.columns;
    heat.height = what.rows;
    const pixels = new ImageData(what.columns, what.rows);
    what.values.forEach((value, i) => {
      if (!what.isShown(value)) return;
      const colour = what.table[Math.round(255 * value / what.most)];
      pixels.data.set([...colour, 255], 4 * i);
    });
    heat.getContext('2d').putImageData(pixels, 0, 0);
    const [left, top, right, bottom] = what.box;
    const style = {left: left / image.width, top: top / image.height, width: (right - left) / image.width, height: (bottom - top) / image.height};
    for (const [key, share] of Object.entries(style)) heat.style[key] = `${100 * share}%`;
    // A flipped image: rows and columns of the map run against those of the image.
    heat.style.transform = `scale(${Math.sign(this.map.scale[0])}, ${Math.sign(this.map.scale[1])})`;
    const line = new ImageData(256, 1);
    what.table.forEach((colour, i) => line.data.set([...colour, 255], 4 * i));
    bar.getContext('2d').putImageData(line, 0, 0);
  }

  // What the drawing shows, in words and numbers.
  describe(token, region, attention) {
    const {map} = this, s = map.partitionFactor, answer = this.find('.answer'), body = this.find('tbody');
    const place = `Place ${Math.floor(query.x)}, ${Math.floor(query.y)}`;
    if (!token) {
      answer.textContent = `${place}: the model does not see it, the test pipeline crops it away.`;
      body.replaceChildren();
      return;
    }
    const routed = map.routes(region);
    const words = number => `${Math.floor(number / s) + 1}, ${number % s + 1}`;
    const isOwn = [...routed].includes(region) ? ', itself among them' : '';
    const padding = attention && attention.padding >= .005 ? ` ${percent(attention.padding, 0)} of the attention is on padding.` : '';
    answer.textContent = `${place}: token in row ${token.row + 1} and column ${token.column + 1} of ${map.rows} x ${map.columns}. Its region ${words(region)} routes to ${routed.length} of ${s * s}${isOwn}.${padding}`;
    while (body.rows.length > routed.length) body.deleteRow(-1);
    while (body.rows.length < routed.length) {
      const row = body.insertRow();
      addNode(row, 'th', {scope: 'row'});
      for (let i = 0; i < 3; i++) row.insertCell();
    }
    routed.forEach((number, rank) => {
      const affinity = map.affinity[region * map.topk + rank], share = attention?.regions[rank];
      const [first, second, third, fourth] = body.rows[rank].cells;
      first.replaceChildren();
      addNode(first, 'span', {class: 'swatch', style: `background: ${this.colourOf(region, rank)}`});
      first.append(rank + 1);
      second.textContent = words(number);
      third.textContent = affinity.toPrecision(4);
      fourth.textContent = attention ? percent(share) : '';
      Object.assign(body.rows[rank].dataset, {region: number, affinity, attention: share ?? ''});
    });
    this.find('.precision').textContent = map.error < .0005
      ? 'Weights are those of the model, rounded by less than 0.05 % of all attention.'
      : `Weights are rounded to fit this file: at some queries of this map by up to ${percent(map.error)} of all attention.`;
  }

  drawThings() {
    const things = this.find('.things'), size = this.letters();
    things.replaceChildren();
    const label = (text, [left, top], name) => addNode(things, 'text', {
      x: Math.max(0, left), y: Math.max(size, top - .25 * size), 'font-size': size, 'stroke-width': .2 * size, class: name,
    }, text);
    if (shown('truth')) truth?.things.forEach(({box, label: name}, i) => {
      addBox(things, box, this.model.missed[i] ? 'missed' : 'there');
      if (this.model.missed[i]) label(name, box, 'missed');
    });
    if (shown('found')) this.model.found.things.forEach(({box, label: name, score}) => {
      addBox(things, box, 'found');
      label(`${name} ${score.toFixed(2)}`, box, 'found');
    });
    for (const [name, labels] of [['found', this.model.found.labels], ['truth', truth?.labels]]) {
      const map = this.find(`.labels.${name}`);
      map.hidden = !labels || !shown(name);
      if (labels && !map.src) map.src = labels.source;
    }
  }

  // Objects, to be asked about one by one, and classes of label maps.
  listThings() {
    const legend = this.find('.legend'), {found, missed, threshold} = this.model;
    const list = title => { addNode(legend, 'h3', {}, title); return addNode(legend, 'ul'); };
    if (truth?.things.length) {
      const number = missed.filter(Boolean).length;
      const items = list(`Ground truth: ${missed.length} objects, ${number} missed`);
      const order = truth.things.map((_, i) => i).sort((a, b) => missed[b] - missed[a]);
      for (const i of order) {
        const {box: [left, top, right, bottom], label} = truth.things[i];
        const side = Math.sqrt((right - left) * (bottom - top)).toFixed(0);
        const kind = missed[i] ? 'missed' : 'there';
        const button = addNode(addNode(items, 'li'), 'button', {type: 'button', class: kind}, `${label}, ${side} px, ${missed[i] ? 'missed' : 'found'}`);
        button.addEventListener('click', () => {
          query.isPinned = true;
          setQuery((left + right) / 2, (top + bottom) / 2);
          speak();
        });
      }
      addNode(legend, 'p', {class: 'soft'}, `A click asks about the middle of an object. It is found if a detection of its class with a score of at least ${threshold} has an IoU of 0.5 with it.`);
    }
    for (const [title, labels] of [['Predicted', found.labels], ['Ground truth', truth?.labels]]) {
      if (!labels) continue;
      const items = list(`${title}: classes`);
      for (const {name, colour, share} of labels.classes) {
        const item = addNode(items, 'li');
        addNode(item, 'span', {class: 'swatch', style: `background: ${colour}`});
        item.append(`${name} ${percent(share)}`);
      }
    }
  }

  speak() {
    this.isSpoken = true;
    const rows = [...this.find('tbody').rows].slice(0, 3).map(row => [...row.cells].map(x => x.textContent));
    const best = rows.map(([, region, affinity, share]) => `region ${region}, affinity ${affinity}${share && `, attention ${share}`}`);
    this.find('.spoken').textContent = `${this.find('.answer').textContent} Best: ${best.join('; ')}.`;
  }
}

const panels = content.models.map((model, i) => new Panel(document.querySelectorAll('.panel')[i], model));

function draw() { for (const panel of panels) panel.draw(); }

function setQuery(x, y) {
  query.x = Math.max(0, Math.min(image.width - .01, x));
  query.y = Math.max(0, Math.min(image.height - .01, y));
  draw();
}

// To those who do not see: what was asked for, and not each place that a pointer passes.
function speak() {
  for (const panel of panels) panel.speak();
  history.replaceState(null, '', `#${query.x.toFixed(1)},${query.y.toFixed(1)}`);
}

function readAddress() {
  const [, x, y] = location.hash.match(/^#([\d.]+),([\d.]+)$/) ?? [];
  if (y === undefined) return draw();
  query.isPinned = true;
  setQuery(Number(x), Number(y));
}

for (const name of ['found', 'truth']) {
  const box = document.getElementById(name);
  box.addEventListener('change', () => panels.forEach(panel => panel.drawThings()));
  const isThere = name === 'truth' ? truth : content.models.some(x => x.found.things.length || x.found.labels);
  box.parentElement.hidden = !isThere;
  if (name === 'truth' && truth?.labels) box.checked = false; // it would cover the predicted one
}
for (const name of ['regions', 'grey']) document.getElementById(name).addEventListener('change', draw);
addEventListener('hashchange', readAddress);
addEventListener('keydown', event => { if (event.key === 'Escape') query.isPinned = false; });
readAddress();

// What is not shown yet is made ready behind what is, one after the other.
(async () => {
  for (const {map} of panels) await codesOf(map);
  for (const {maps} of panels) for (const map of maps) await codesOf(map);
})();
