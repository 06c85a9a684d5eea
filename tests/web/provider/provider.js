// An OpenID provider on a free port of 127.0.0.1: `node provider.js '{"redirect": …, "groups": {…}, …}'`.
//
// It says its issuer in one line of JSON, and ends with its standard input. Whoever gives a name is that person.

import { generateKeyPairSync } from "node:crypto";
import http from "node:http";
import { Provider } from "oidc-provider";

const { redirect, groups, inUserinfo, algorithm } = JSON.parse(process.argv[2]);

const keys = [
  generateKeyPairSync("rsa", { modulusLength: 2048 }),
  generateKeyPairSync("ec", { namedCurve: "P-256" }),
].map(({ privateKey }) => privateKey.export({ format: "jwk" }));

const server = http.createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "harmony",
        client_secret: "a+secret:of/50%",
        redirect_uris: [redirect],
        id_token_signed_response_alg: algorithm,
      },
    ],
    claims: { openid: ["sub"], groups: ["groups", "realm_access"] },
    // As it comes, what a scope brings is told at its userinfo, and not in the ID token.
    conformIdTokenClaims: inUserinfo,
    cookies: { keys: ["a key of the tests"] },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "PS256", "ES256"] },
    jwks: { keys },
    features: { devInteractions: { enabled: true } },
    findAccount: (_, id) => {
      const theirs = groups[id] ?? [];
      // Also as Keycloak tells of roles.
      return { accountId: id, claims: () => ({ sub: id, groups: theirs, realm_access: { roles: theirs } }) };
    },
    pkce: { required: () => true },
  });
  provider.on("server_error", (_, error) => console.error(error));
  server.on("request", provider.callback());
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on("end", () => process.exit(0));
