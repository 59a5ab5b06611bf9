// A link ends in #token=…, which browsers do not send: the form is filled in with it, and it leaves the address.
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("token").value = given;
  document.querySelector("form.login").submit();
}
