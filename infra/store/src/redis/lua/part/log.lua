-- A log shorter than this is never written anew.
local SHORT = 4096

-- Adds to the log of a message, if it has one. Gives its new length when it should be written anew, else 0.
local function log(tally, records)
  local length = call('APPEND', tally, records)
  if length == #records then
    call('DEL', tally)
  elseif length > SHORT and length > struct.unpack('>I4', call('GETRANGE', tally, 0, 3)) then
    return length
  end
  return 0
end

