"use strict";
const ICE_MS = 5000, RETRY_MS = [1000, 2000, 4000, 8000], TAKEN_MS = 5000;
const PICTURE_MS = 75, PICTURE_WAITING = 150000, SOUND_WAITING = 600000; // bytes that may wait for a slow network
const NOT_SECURE = "This page is not encrypted, so the browser gives it no camera: open it by https:// or as http://127.0.0.1.";

// Sends this browser's camera and microphone to the mma-edge that serves the page: by WebRTC, or over a WebSocket where
// UDP is blocked. `own` is the <video> of the own picture; `say(text, kind)` tells the user, kind "good", "bad" or "";
// `changed(wanted)` follows each start and stop; `faces(list)` gets the newest answers about the picture.
class Camera {
  constructor(own, { say, changed, faces }) {
    Object.assign(this, { own, say, changed, faces });
    Object.assign(this, { wanted: false, stream: null, socket: null, peer: null, road: null, awake: null });
    Object.assign(this, { tries: 0, timer: 0, round: 0 });
    addEventListener("pagehide", () => { if (this.socket) this.socket.close(); });
  }

  start() {
    if (!window.isSecureContext || !navigator.mediaDevices) return this.say(NOT_SECURE, "bad");
    this.wanted = true;
    this.tries = 0;
    this.changed(true);
    this.connect();
  }

  stop(text = "Stopped.", kind = "") {
    this.wanted = false;
    this.tell({ type: "stop" });
    this.hangUp();
    if (this.socket) this.socket.close();
    if (this.stream) this.stream.getTracks().forEach(track => track.stop());
    this.stream = this.own.srcObject = null;
    if (this.awake) this.awake.release();
    this.faces([]);
    this.changed(false);
    this.say(text, kind);
  }

  // Everything that sends, but not the WebSocket itself.
  hangUp() {
    this.round++;
    clearTimeout(this.timer);
    if (this.peer) this.peer.close();
    if (this.road) this.road.end();
    this.peer = this.road = null;
  }

  again(text, ms) {
    this.hangUp();
    if (!this.wanted) return;
    this.say(text, "bad");
    this.timer = setTimeout(() => this.connect(), ms);
  }

  async connect() {
    this.say("Connecting…");
    this.hangUp();
    if (await logIn() === "refused") {
      return this.stop("This page needs a link with a token: take the newest that mma-edge made.", "bad");
    }
    if (!this.wanted) return;
    const mine = this.socket = socketAt("/visit");
    mine.onopen = () => this.tell({ type: "start" });
    mine.onmessage = event => { if (mine === this.socket) this.heed(JSON.parse(event.data)); };
    mine.onclose = () => {
      if (mine !== this.socket) return;
      this.socket = null;
      this.again("mma-edge is not there. Trying again…", RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
    };
  }

  tell(message) {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  heed(message) {
    const { type } = message;
    if (type === "go") this.begin(message.audio);
    else if (type === "taken") this.again("Another browser is sending. Waiting until it has stopped…", TAKEN_MS);
    else if (type === "answer" && this.peer) {
      this.peer.setRemoteDescription({ type: "answer", sdp: message.sdp }).catch(() => this.overSocket());
    } else if (type === "refused") { if (this.peer && !this.peer.remoteDescription) this.overSocket(); }
    else if (type === "emotions") this.faces(message.faces);
  }

  async devices(audio) {
    const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25 }, facingMode: "user" };
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }; // the voice as it is
    const wishes = [{ video, audio: audio && plain }];
    if (audio) wishes.push({ video }, { audio: plain });
    for (const wish of wishes) {
      try { return await navigator.mediaDevices.getUserMedia(wish); }
      catch (error) { if (error.name !== "NotFoundError" || wish === wishes.at(-1)) throw error; }
    }
  }

  async begin(audio) {
    const mine = this.round;
    if (!this.stream || this.stream.getTracks().some(track => track.readyState === "ended")) {
      this.say("Asking for camera and microphone…");
      try { this.stream = await this.devices(audio); }
      catch (error) {
        const why = {
          NotAllowedError: "The browser may not use camera and microphone. Allow it beside the address, then press Start.",
          NotFoundError: "This device has no camera and no microphone.",
          NotReadableError: "Another program uses the camera or the microphone.",
        };
        return this.stop(why[error.name] || `Camera and microphone: ${error.message}`, "bad");
      }
      if (!this.wanted) return this.stop();
      for (const track of this.stream.getTracks()) {
        track.onended = () => this.stop("Camera or microphone was taken away.", "bad");
      }
      this.own.srcObject = this.stream;
    }
    if (mine !== this.round) return;
    if (!window.RTCPeerConnection || new URLSearchParams(location.search).get("road") === "websocket") {
      return this.overSocket();
    }
    this.say("Connecting…");
    const now = this.peer = new RTCPeerConnection({ iceServers: [] });
    this.stream.getTracks().forEach(track => now.addTrack(track, this.stream));
    now.onconnectionstatechange = () => {
      if (now !== this.peer) return;
      if (now.connectionState === "connected") { clearTimeout(this.timer); this.sending("WebRTC"); }
      else if (now.connectionState === "failed") this.overSocket();
    };
    this.timer = setTimeout(() => this.overSocket(), ICE_MS);
    try {
      await now.setLocalDescription(await now.createOffer());
      await new Promise(done => {
        now.onicegatheringstatechange = () => now.iceGatheringState === "complete" && done();
        setTimeout(done, 1000);
      });
      if (now === this.peer) this.tell({ type: "offer", sdp: now.localDescription.sdp });
    } catch (error) { if (now === this.peer) this.overSocket(); }
  }

  sending(name) {
    this.tries = 0;
    // A phone that turns its screen off turns the camera off, too.
    if (navigator.wakeLock && !this.awake) {
      navigator.wakeLock.request("screen").then(lock => {
        this.awake = lock;
        lock.onrelease = () => { this.awake = null; };
      }, () => {});
    }
    const kinds = this.stream.getTracks().map(track => track.kind === "video" ? "camera" : "microphone").sort();
    this.say(`Sending ${kinds.join(" and ")} (${name}).`, "good");
  }

  // Where UDP is blocked: JPEGs and plain sound over the WebSocket, both with times of performance.now().
  overSocket() {
    this.hangUp();
    if (!this.wanted || !this.stream) return;
    const ends = [];
    this.road = { end: () => ends.forEach(end => end()) };
    if (this.stream.getVideoTracks().length) ends.push(this.sendPictures());
    this.sending("WebSocket");
    const mine = this.round;
    if (this.stream.getAudioTracks().length) this.sendSound(mine).then(end => end && ends.push(end), error => {
      if (mine === this.round) this.say(`Sending the picture only (WebSocket): ${error.message}`, "bad");
    });
  }

  sendMedia(kind, rate, capturedMs, content, mostWaiting) {
    const { socket } = this;
    if (!socket || socket.readyState !== WebSocket.OPEN || socket.bufferedAmount > mostWaiting) return;
    const head = new DataView(new ArrayBuffer(16));
    head.setUint8(0, kind);
    head.setUint32(4, rate, true);
    head.setBigInt64(8, BigInt(Math.round(1000 * capturedMs)), true);
    socket.send(new Blob([head, content]));
  }

  sendPictures() {
    const canvas = document.createElement("canvas"), paper = canvas.getContext("2d"), { own } = this;
    let over = false, busy = false, newest = 0;
    const take = (now, facts) => {
      if (over) return;
      next();
      const waiting = this.socket ? this.socket.bufferedAmount : 0;
      if (busy || now - newest < PICTURE_MS || !own.videoWidth || waiting > PICTURE_WAITING) return;
      newest = now;
      busy = true;
      const scale = Math.min(1, 640 / Math.max(own.videoWidth, own.videoHeight));
      canvas.width = Math.round(own.videoWidth * scale);
      canvas.height = Math.round(own.videoHeight * scale);
      paper.drawImage(own, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(jpeg => {
        busy = false;
        if (!over && jpeg) this.sendMedia(1, 0, facts && facts.captureTime || now, jpeg, PICTURE_WAITING);
      }, "image/jpeg", 0.8);
    };
    const next = () => {
      if (own.requestVideoFrameCallback) own.requestVideoFrameCallback(take);
      else setTimeout(() => take(performance.now()), PICTURE_MS);
    };
    next();
    return () => { over = true; };
  }

  async sendSound(mine) {
    const context = new AudioContext(), code = URL.createObjectURL(new Blob([PROCESSOR], { type: "text/javascript" }));
    const end = () => { context.close().catch(() => {}); URL.revokeObjectURL(code); };
    await context.audioWorklet.addModule(code).catch(error => { end(); throw error; });
    if (mine !== this.round) return end();
    const rate = context.sampleRate, blocks = new AudioWorkletNode(context, "blocks", { numberOfOutputs: 0 });
    let offset = Infinity;
    blocks.port.onmessage = event => {
      const [block, first] = event.data, length = 1000 * block.length / rate;
      // Messages only come late, never early: the smallest delay counts. It may grow slowly, for clocks that drift.
      offset = Math.min(offset + length * 2e-4, performance.now() - length - 1000 * first / rate);
      this.sendMedia(2, rate, 1000 * first / rate + offset, block, SOUND_WAITING);
    };
    context.createMediaStreamSource(this.stream).connect(blocks);
    context.resume();
    return end;
  }
}

const PROCESSOR = `registerProcessor("blocks", class extends AudioWorkletProcessor {
  constructor() { super(); this.block = new Int16Array(2 * Math.round(sampleRate / 50)); this.filled = 0; }
  process(inputs) {
    const input = inputs[0][0];
    if (!input) return true;
    for (let i = 0; i < input.length; i++) {
      this.block[this.filled++] = 32767 * Math.max(-1, Math.min(1, input[i]));
      if (this.filled === this.block.length) {
        this.port.postMessage([this.block, currentFrame + i + 1 - this.filled]);
        this.block = new Int16Array(this.filled);
        this.filled = 0;
      }
    }
    return true;
  }
});`;
