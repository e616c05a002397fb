// Rows of tokens: learned, read, or cut away. Every piece is shown as text.
export default {
  props: { rows: Array },
  methods: {
    kind(weight) {
      return weight >= 1 ? "learned" : weight > 0 ? "partly" : "read";
    },
    shown(piece) {
      return piece.replace(/\n/g, "↵\n").replace(/\t/g, "⇥");
    },
  },
  template: `
    <ol class="tt-tokens">
      <li v-for="row in rows" :key="row.id">
        <div class="tt-muted tt-tokens-head">
          {{ row.id }} · {{ row.tokens }} tokens, {{ row.trained }} learned
        </div>
        <div class="tt-tokens-row">
          <template v-for="(piece, place) in row.pieces" :key="place"><strong
            v-if="row.cut && row.cut[0] === place" class="tt-token tt-token-cut"
            >… context cut here …</strong><span
            :class="'tt-token tt-token-' + kind(piece[1])"
            :title="kind(piece[1]) + (piece[1] > 0 && piece[1] < 1 ? ', weight ' + piece[1] : '')"
            >{{ shown(piece[0]) }}</span></template>
        </div>
      </li>
    </ol>`,
};
