'use strict';

// Parts of the page that the server sends again when they have changed.
const live = document.body.dataset.live;
if (live) {
  let source = null;
  // A page that nobody looks at follows nothing; browsers allow six connections to a server.
  const follow = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (source === null) {
      source = new EventSource(live);
      source.onmessage = show;
    }
  };
  const show = (event) => {
    for (const { id, html } of JSON.parse(event.data)) {
      const part = document.getElementById(id);
      if (part === null || part.innerHTML === html) continue;
      // Whoever is there with the keyboard, or has opened something, stays there.
      const focused = part.contains(document.activeElement) ? document.activeElement.id : '';
      const open = [...part.querySelectorAll('details')].map((details) => details.open);
      part.innerHTML = html;
      enliven(part);
      attention(part);
      part.querySelectorAll('details').forEach((details, i) => { details.open = open[i] ?? false; });
      if (focused) document.getElementById(focused)?.focus();
    }
  };
  document.addEventListener('visibilitychange', follow);
  follow();
}

// Photos that are dropped or chosen are shown before they are uploaded, and the upload shows how far it is.
const upload = document.getElementById('upload');
if (upload) {
  const files = document.getElementById('files');
  const drop = upload.querySelector('.drop');
  const shown = document.getElementById('chosen-photos');
  const show = () => {
    for (const image of shown.children) URL.revokeObjectURL(image.src);
    // What is no image is a caption.
    const images = [...files.files].filter((file) => !/\.(txt|caption)$/i.test(file.name));
    shown.replaceChildren(...images.slice(0, 50).map((file) => {
      const image = new Image();
      image.src = URL.createObjectURL(file);
      image.alt = file.name;
      return image;
    }));
    const counted = (count, what) => (count === 1 ? `1 ${what}` : `${count} ${what}s`);
    const captions = files.files.length - images.length;
    const text = counted(images.length, 'image') + (captions > 0 ? `, ${counted(captions, 'caption')}` : '');
    document.getElementById('chosen').textContent = text;
  };
  files.addEventListener('change', show);
  for (const name of ['dragover', 'dragleave', 'drop']) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', name === 'dragover');
      if (name === 'drop' && event.dataTransfer.files.length > 0) {
        files.files = event.dataTransfer.files;
        show();
      }
    });
  }
  const fail = (text) => {
    document.getElementById('uploading').hidden = true;
    let alert = upload.querySelector('[role=alert]');
    if (alert === null) {
      alert = document.createElement('p');
      alert.setAttribute('role', 'alert');
      upload.append(alert);
    }
    alert.textContent = text;
  };
  upload.addEventListener('submit', (event) => {
    event.preventDefault();
    const most = Number(upload.dataset.most);
    const large = [...files.files].find((file) => file.size > most);
    if (large !== undefined) {
      fail(`The photo ${large.name} is larger than ${most >> 20} MB: save it smaller.`);
      return;
    }
    const bar = document.getElementById('uploading');
    const request = new XMLHttpRequest();
    request.upload.onprogress = (progress) => { bar.value = progress.loaded / progress.total; };
    request.onload = () => {
      if (request.status < 400) {
        location.href = request.responseURL;
      } else {
        // The page that says what is wrong.
        const said = new DOMParser().parseFromString(request.responseText, 'text/html').querySelector('[role=alert]');
        fail(said === null ? request.responseText : said.textContent);
      }
    };
    request.onerror = () => fail('The upload was cut off. A photo may have 50 MB.');
    bar.hidden = false;
    bar.value = 0;
    request.open('POST', upload.action);
    request.send(new FormData(upload));
  });
}

// The word under the pointer, or with the focus, shows its map in every image.
function attention(root) {
  for (const box of root.querySelectorAll('.attention')) {
    const buttons = [...box.querySelectorAll('.words button')];
    const parts = [...box.querySelectorAll('figure [data-word]')];
    const images = [...box.querySelectorAll('figure > img:first-child')];
    let kept = null;
    const show = (word) => {
      for (const part of parts) part.hidden = part.dataset.word !== word;
      for (const image of images) image.hidden = word !== null;
      for (const button of buttons) button.setAttribute('aria-pressed', String(button.dataset.word === word));
    };
    for (const button of buttons) {
      button.addEventListener('pointerenter', () => show(button.dataset.word));
      button.addEventListener('pointerleave', () => show(kept));
      button.addEventListener('focus', () => show(button.dataset.word));
      button.addEventListener('blur', () => show(kept));
      button.addEventListener('click', () => {
        kept = kept === button.dataset.word ? null : button.dataset.word;
        show(kept);
      });
    }
  }
}
attention(document);
