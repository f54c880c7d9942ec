// The search runs in a worker, which browsers refuse to pages opened from disk. There a hidden frame
// takes its place: the same script, and messages handed over in their order.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(address) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        setTimeout(() => this.onmessage?.(event));
      };
      const script = inside.document.createElement("script");
      script.src = new URL(address, location);
      script.onload = () => {
        this.waiting.forEach((data) => this.hand(data));
        this.waiting = null;
      };
      inside.document.head.append(script);
    }

    postMessage(data) {
      this.waiting ? this.waiting.push(data) : this.hand(data);
    }

    hand(data) {
      const inside = this.frame.contentWindow;
      const event = new inside.MessageEvent("message", { data: structuredClone(data) });
      setTimeout(() => inside.dispatchEvent(event));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
