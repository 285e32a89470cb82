// Prints what @jellyfin/sdk sends for the questions of `media-assets jellyfin fetch`, as jellyfin_sdk.json has it:
//   npm install @jellyfin/sdk axios && node record.mjs > jellyfin_sdk.json
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { Jellyfin } from '@jellyfin/sdk';
import { getLibraryApi } from '@jellyfin/sdk/lib/utils/api/library-api.js';

const requests = [];
const server = createServer((request, response) => {
  const { accept, authorization } = request.headers;
  requests.push({ method: request.method, target: request.url, accept, authorization });
  response.setHeader('content-type', 'application/json');
  response.end('{"Items":[],"TotalRecordCount":0,"StartIndex":0}');
});
await new Promise(ready => server.listen(0, '127.0.0.1', ready));

const client = { clientInfo: { name: 'recorder', version: '1' }, deviceInfo: { name: 'recorder', id: 'recorder' } };
const address = `http://127.0.0.1:${server.address().port}/base`;
const library = getLibraryApi(new Jellyfin(client).createApi(address, 'the-key'));
await library.getItems({ ids: ['i1', 'i2', 'i3', 'i4'], enableUserData: false });
await library.getItems({
  searchTerm: 'Title 10', recursive: true, enableUserData: false, startIndex: 0, limit: 100,
  minPremiereDate: '2025-10-01T00:00:00.000Z', maxPremiereDate: '2025-10-01T23:59:59.999Z',
});
server.close();

const { version } = createRequire(import.meta.url)('@jellyfin/sdk/package.json');
console.log(JSON.stringify({ origin: `@jellyfin/sdk ${version} (npm)`, requests }, null, 2));
